//! Text-to-image models over HTTP: the pictures of diffusers' pipelines and the steps of cache-dit, asked for
//! all at once, so that prompts of every length, sizes, guidance and caches share batches.

use std::path::PathBuf;
use std::thread;

use serde_json::{Map, Value, json};

use crate::picture::Picture;
use crate::server::Server;

const LEAST_PSNR: f64 = 45.0;

/// A folder below `tests/fixtures` and a server of its model.
struct Family {
    path: PathBuf,
    golden: Value,
    server: Server,
    /// The value of `--max-sequence-length`.
    max_sequence_length: Option<Value>,
}

impl Family {
    fn serve(name: &str, flags: &[&str]) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path.join("golden.json")).unwrap()).unwrap();
        let model = path.join("model");
        let mut sizes = ["64x64", "96x64", "64x96"].map(str::to_owned).to_vec();
        sizes.extend(golden["runs"].as_array().unwrap().iter().map(size_of));
        let sizes = sizes.join(",");
        // Long prompts are longer than servers take by default.
        let own = ["--model", model.to_str().unwrap(), "--buckets", &sizes, "--max-prompt-chars", "10000"];
        let flags = [&own, flags].concat();
        Self { golden, server: Server::start(&flags), path, max_sequence_length: None }
    }

    fn list(&self, key: &str) -> &[Value] {
        self.golden[key].as_array().unwrap()
    }

    /// The request for a run; `None` for one that needs another folder or another length of prompts, or has no prompt.
    fn request(&self, run: &Value) -> Option<Value> {
        if run["prompt"] == ""
            || run.get("without").is_some()
            || run.get("max_sequence_length") != self.max_sequence_length.as_ref()
        {
            return None;
        }
        let mut request = json!({"size": size_of(run)});
        for key in ["prompt", "seed", "num_inference_steps", "guidance_scale", "true_cfg_scale", "scheduler"] {
            if let Some(value) = run.get(key) {
                request[key] = value.clone();
            }
        }
        let has_second_forward =
            ["FluxPipeline", "QwenImagePipeline"].map(Value::from).contains(&self.golden["pipeline"]);
        let guided = if has_second_forward { "true_cfg_scale" } else { "guidance_scale" };
        if run[guided].as_f64().is_some_and(|scale| scale > 1.0) {
            request["negative_prompt"] = run["negative_prompt"].clone();
        }
        Some(request)
    }

    fn run(&self, name: &str) -> &Value {
        self.list("runs").iter().find(|run| run["name"] == name).unwrap()
    }

    /// A run under cache-dit as a request.
    fn cached_request(&self, cached: &Value) -> Value {
        let mut request = self.request(self.run(self.golden["cached_run"].as_str().unwrap())).unwrap();
        let mut config: Map<String, Value> = cached["config"].as_object().unwrap().clone();
        if let Some(policy) = config.remove("steps_computation_policy") {
            config.insert("scm_steps_policy".to_owned(), policy);
        }
        if let Some(calibrator) = cached["calibrator"].as_object() {
            config.insert("enable_taylorseer".to_owned(), json!(true));
            config.insert("taylorseer_order".to_owned(), calibrator["taylorseer_order"].clone());
        }
        request["cache_backend"] = json!("cache_dit");
        request["cache_config"] = json!(config);
        request
    }

    fn check_run(&self, run: &Value) {
        let Some(request) = self.request(run) else { return };
        let picture = Picture::of(&self.server.generate(&request), 0);
        let file = self.path.join(format!("{}.png", run["name"].as_str().unwrap()));
        let psnr = picture.psnr(&Picture::from_png(&std::fs::read(file).unwrap()));
        assert!(psnr >= LEAST_PSNR, "{request}: {psnr} dB");
    }

    fn check_cached(&self, cached: &Value) {
        let request = self.cached_request(cached);
        let report = self.server.generate(&request)["cache"].take();
        // Of several block lists, the last is in the golden.
        let contexts = report["images"][0]["contexts"].as_array().unwrap();
        assert_eq!(contexts.last().unwrap()["cached_steps"], cached["cached_steps"], "{request}");
        if let [_] = contexts.as_slice() {
            assert_eq!(report["tag"], cached["tag"], "{request}");
        }
    }

    /// What was decided in every context of a run with this cache.
    fn check_contexts(&self, cached: &Value) {
        let mut request = self.request(self.run(cached["run"].as_str().unwrap())).unwrap();
        for key in ["cache_backend", "cache_config"] {
            request[key] = cached[key].clone();
        }
        let report = self.server.generate(&request)["cache"].take();
        let decided = |context: &Value| ["name", "branch", "cached_steps"].map(|key| context[key].clone());
        let contexts = |value: &Value| value.as_array().unwrap().iter().map(decided).collect::<Vec<_>>();
        assert_eq!(contexts(&report["images"][0]["contexts"]), contexts(&cached["contexts"]), "{request}");
    }
}

fn size_of(run: &Value) -> String {
    format!("{}x{}", run["width"], run["height"])
}

/// All runs and caches of a model at once.
fn check_family(name: &str) {
    let family = Family::serve(name, &[]);
    thread::scope(|scope| {
        for run in family.list("runs") {
            scope.spawn(|| family.check_run(run));
        }
        for cached in family.list("cached") {
            scope.spawn(|| family.check_cached(cached));
        }
    });
    let card = family.server.get("/v1/models").json()["data"][0].take();
    assert_eq!(card["pipeline"], family.golden["pipeline"]);
    assert_eq!((&card["labels"], &card["label_policy"]), (&json!([]), &json!(null)));
}

#[test]
fn pixart_alpha() {
    check_family("pixart-alpha");
}

#[test]
fn stable_diffusion_3_5() {
    check_family("sd3.5");
}

/// Also a run with an empty negative prompt, which counts.
#[test]
fn qwen_image() {
    check_family("qwen-image");
}

/// A negative prompt is encoded without the instruction that prompts stand behind.
#[test]
fn sana() {
    check_family("sana");
}

#[test]
fn z_image_turbo() {
    check_family("z-image-turbo");
}

#[test]
fn flux_dev() {
    check_family("flux-dev");
}

#[test]
fn flux_schnell() {
    check_family("flux-schnell");
}

#[test]
fn flux2_dev() {
    check_family("flux2-dev");
}

#[test]
fn flux2_klein() {
    check_family("flux2-klein");
}

#[test]
fn flux2_klein_base() {
    check_family("flux2-klein-base");
}

/// Both block lists decide, and under guidance both forwards of each.
#[test]
fn every_block_list_and_forward_of_flux2_decides_for_itself() {
    for (name, caches) in [("flux2-klein", "flux2_caches"), ("flux2-klein-base", "flux2_base_caches")] {
        let family = &Family::serve(name, &[]);
        let file = family.path.join("../cache").join(caches).with_extension("json");
        let caches: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        thread::scope(|scope| {
            for cached in &caches {
                scope.spawn(|| family.check_contexts(cached));
            }
        });
    }
}

#[test]
fn flux2_says_what_guidance_it_takes() {
    for (name, fields, param, reason) in [
        ("flux2-klein", json!({"guidance_scale": 4}), "guidance_scale", "distilled to work without guidance"),
        ("flux2-klein", json!({"negative_prompt": "blurry"}), "negative_prompt", "distilled to work without one"),
        ("flux2-klein-base", json!({"negative_prompt": "blurry"}), "negative_prompt", "away from the empty prompt"),
        ("flux2-klein-base", json!({"true_cfg_scale": 2}), "true_cfg_scale", "set `guidance_scale`"),
        ("flux2-dev", json!({"negative_prompt": "blurry"}), "negative_prompt", "distilled to work without one"),
        ("flux2-dev", json!({"true_cfg_scale": 2}), "true_cfg_scale", "set `guidance_scale`"),
    ] {
        let Family { server, .. } = Family::serve(name, &[]);
        let mut request = json!({"prompt": "a red apple", "num_inference_steps": 1});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let refused = server.post(request.to_string().as_bytes());
        assert_eq!((refused.status, refused.error().0.as_deref()), (400, Some(param)), "{name}: {}", refused.text());
        assert!(refused.text().contains(reason), "{name}: {}", refused.text());
    }
}

#[test]
fn hunyuan_dit_1_2() {
    check_family("hunyuan-1.2");
}

#[test]
fn hunyuan_dit_1_1() {
    check_family("hunyuan-1.1");
}

/// Each picture's generator goes on through all of its steps, whatever others draw.
#[test]
fn noise_of_every_step_is_the_picture_s_own() {
    let Family { server, .. } = &Family::serve("hunyuan-1.2", &[]);
    let both = server.generate(&json!({"prompt": "a red apple", "seed": 1, "n": 2, "num_inference_steps": 6}));
    for (index, seed) in [1, 2].into_iter().enumerate() {
        let alone = server.generate(&json!({"prompt": "a red apple", "seed": seed, "num_inference_steps": 6}));
        let psnr = Picture::of(&both, index).psnr(&Picture::of(&alone, 0));
        assert!(psnr >= LEAST_PSNR, "{seed}: {psnr} dB");
    }
}

#[test]
fn no_block_runs_without_the_one_that_leaves_it_a_skip() {
    let Family { server, .. } = &Family::serve("hunyuan-1.2", &[]);
    let request = |config: Value| json!({"prompt": "a", "cache_backend": "cache_dit", "cache_config": config});
    for (config, key) in [
        (json!({"Fn_compute_blocks": 1, "Bn_compute_blocks": 2}), "Bn_compute_blocks"),
        (json!({"cache_type": "DBPrune"}), "Fn_compute_blocks"),
    ] {
        let refused = server.post(request(config).to_string().as_bytes());
        let param = format!("cache_config.{key}");
        assert_eq!((refused.status, refused.error().0), (400, Some(param)), "{}", refused.text());
    }
}

#[test]
fn a_length_of_prompts_that_is_not_the_pipeline_s() {
    let family = Family::serve("sd3", &["--max-sequence-length", "77"]);
    let family = Family { max_sequence_length: Some(json!(77)), ..family };
    assert!(family.request(family.run("long_negative")).is_some());
    family.list("runs").iter().for_each(|run| family.check_run(run));
}

/// FLUX's pipeline gives the noise levels, which Heun's scheduler does not take.
#[test]
fn a_model_offers_no_scheduler_that_it_refuses() {
    let Family { server, .. } = &Family::serve("flux-dev", &[]);
    let card = server.get("/v1/models").json()["data"][0].take();
    let possible = ["DPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"];
    assert_eq!(card["schedulers"], json!(possible));
    let request = json!({"prompt": "a cat", "num_inference_steps": 1, "scheduler": "FlowMatchHeunDiscreteScheduler"});
    let refused = server.post(request.to_string().as_bytes());
    assert_eq!((refused.status, refused.error().0.as_deref()), (400, Some("scheduler")), "{}", refused.text());
    let of_others = json!({"prompt": "a cat", "num_inference_steps": 1, "scheduler": "DDIMScheduler"});
    let refused = server.post(of_others.to_string().as_bytes());
    assert!(
        refused.text().contains(&format!("possible with this model: {}", possible.join(", "))),
        "{}",
        refused.text()
    );
}

#[test]
fn schedulers_of_flow_matching() {
    let Family { server, .. } = &Family::serve("sd3", &[]);
    let card = server.get("/v1/models").json()["data"][0].take();
    let flow = [
        "DPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "UniPCMultistepScheduler",
    ];
    assert_eq!((&card["defaults"]["scheduler"], &card["schedulers"]), (&json!(flow[1]), &json!(flow)));
    let request =
        |scheduler: &str| json!({"prompt": "a cat", "seed": 1, "num_inference_steps": 6, "scheduler": scheduler});
    // Heun makes two forwards per step but for the last; requests speak in steps.
    for scheduler in flow {
        assert_eq!(server.generate(&request(scheduler))["cache"]["steps"], 6, "{scheduler}");
        let mut cached = request(scheduler);
        cached["cache_backend"] = json!("cache_dit");
        cached["cache_config"] = json!({
            "num_inference_steps": 6, "steps_computation_mask": [1, 1, 0, 1, 0, 1], "scm_steps_policy": "static"
        });
        let response = server.generate(&cached);
        assert_eq!(response.get("warnings"), None);
        let context = &response["cache"]["images"][0]["contexts"][0];
        assert_eq!((&context["cached_steps"], &response["cache"]["hit_rate"]), (&json!([2, 4]), &json!(2.0 / 6.0)));
        assert_eq!(context["reasons"].as_object().unwrap().len(), 6);
        cached["cache_config"]["num_inference_steps"] = json!(11);
        let refused = server.post(cached.to_string().as_bytes());
        assert_eq!(refused.error().0.as_deref(), Some("cache_config.num_inference_steps"), "{}", refused.text());
    }
    let refused = server.post(request("DDIMScheduler").to_string().as_bytes());
    assert_eq!((refused.status, refused.error().0.as_deref()), (400, Some("scheduler")), "{}", refused.text());
}
