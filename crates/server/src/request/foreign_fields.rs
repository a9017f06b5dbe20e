//! What other image APIs call our fields.
//!
//! A client that sends `steps` means `num_inference_steps`; the field with the most similar name would be another.
//! So a name that is known from elsewhere is looked up here, and only a name that no API uses is taken for
//! a typing error. Names are compared without case, hyphens and underscores.

/// A field, and the names it has in A1111's web UI, ComfyUI, InvokeAI, Stability's, Replicate's, fal's, Together's
/// and Google's APIs, diffusers' command lines and SGLang.
const MEANT: [(&str, &[&str]); 17] = [
    (
        "prompt",
        &["text", "texts", "prompts", "textprompts", "positiveprompt", "input", "inputs", "caption", "description"],
    ),
    ("negative_prompt", &["negative", "negprompt", "negativetext", "negativeprompts", "unconditionalprompt", "uncond"]),
    ("model", &["modelid", "modelname", "checkpoint", "ckpt", "ckptname", "sdmodelcheckpoint", "engine", "engineid"]),
    (
        "n",
        &[
            "samples",
            "numsamples",
            "nsamples",
            "batchsize",
            "batchcount",
            "niter",
            "numimages",
            "nimages",
            "imagecount",
            "numimagesperprompt",
            "numberofimages",
            "numberofresults",
            "numoutputs",
            "numresults",
            "count",
            "quantity",
            "samplecount",
        ],
    ),
    (
        "size",
        &[
            "width",
            "height",
            "w",
            "h",
            "imagesize",
            "imagewidth",
            "imageheight",
            "resolution",
            "dimensions",
            "aspectratio",
            "ar",
        ],
    ),
    ("seed", &["noiseseed", "randomseed", "manualseed", "rngseed", "generator"]),
    (
        "num_inference_steps",
        &[
            "steps",
            "step",
            "numsteps",
            "nsteps",
            "samplingsteps",
            "samplesteps",
            "numsamplingsteps",
            "inferencesteps",
            "numberofsteps",
            "stepcount",
            "ddimsteps",
            "denoisingsteps",
            "diffusionsteps",
            "infersteps",
        ],
    ),
    (
        "guidance_scale",
        &[
            "cfg",
            "cfgscale",
            "guidance",
            "guidancestrength",
            "cfgstrength",
            "scale",
            "classifierfreeguidancescale",
            "unconditionalguidancescale",
            "distilledcfgscale",
            "distilledguidance",
            "embeddedguidancescale",
            "cfgguidance",
        ],
    ),
    ("true_cfg_scale", &["truecfg", "trueguidancescale", "trueguidance"]),
    (
        "scheduler",
        &[
            "sampler",
            "samplername",
            "samplerindex",
            "samplertype",
            "samplingmethod",
            "samplemethod",
            "samplescheduler",
            "schedulername",
            "schedulertype",
            "schedulerclass",
            "noisescheduler",
        ],
    ),
    (
        "cache_backend",
        &[
            "cache",
            "caching",
            "usecache",
            "enablecache",
            "cachetype",
            "cachemethod",
            "enablecachedit",
            "enableteacache",
            "teacache",
        ],
    ),
    (
        "cache_config",
        &["cacheditparams", "cacheditconfig", "cacheparams", "cacheoptions", "cachesettings", "cacheparameters"],
    ),
    ("response_format", &["responsetype", "returntype", "returnformat", "returnbase64", "resultformat", "sendimages"]),
    (
        "output_format",
        &["format", "imageformat", "fileformat", "filetype", "imagetype", "mimetype", "outputmimetype", "outputtype"],
    ),
    (
        "output_compression",
        &["outputquality", "compression", "compressionquality", "jpegquality", "imagequality", "compressionlevel"],
    ),
    ("partial_images", &["previews", "numpreviews", "numpartialimages", "partials", "intermediateimages"]),
    ("stream", &["streaming", "usestream"]),
];

/// Names of things that other servers have and this one has not, so that they are not taken for a misspelt field.
const NOT_HERE: [&str; 13] = [
    "styles",
    "mode",
    "image",
    "images",
    "strength",
    "mask",
    "eta",
    "lora",
    "loras",
    "subseed",
    "shift",
    "sigmas",
    "qualities",
];

/// What is known of a field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It is ours under another name.
    Means(&'static str),
    /// It is known, and has no counterpart here.
    NotHere,
    /// No API has a field of this name.
    Unknown,
}

/// What a client means by this name.
pub(super) fn look_up(name: &str) -> Foreign {
    let name = folded(name);
    let meant = MEANT.iter().find(|(field, names)| folded(field) == name || names.contains(&&*name));
    match meant {
        Some((field, _)) => Foreign::Means(field),
        None if NOT_HERE.contains(&&*name) => Foreign::NotHere,
        None => Foreign::Unknown,
    }
}

/// How to give a field that differs in more than its name.
pub(super) fn note(field: &str, asked: &str) -> &'static str {
    match (field, &*folded(asked)) {
        ("size", _) => " (\"WIDTHxHEIGHT\", such as \"512x512\")",
        ("cache_backend", "enableteacache" | "teacache") => " (\"tea_cache\")",
        ("cache_backend", _) => " (\"cache_dit\", \"tea_cache\", \"mag_cache\", \"auto\" or \"none\")",
        ("scheduler", _) => " (a class of diffusers, such as \"DPMSolverMultistepScheduler\")",
        _ => "",
    }
}

fn folded(name: &str) -> String {
    name.chars().filter(|character| !"_- ".contains(*character)).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_elsewhere_lead_to_what_is_meant() {
        for (name, field) in [
            ("steps", "num_inference_steps"),
            ("num_steps", "num_inference_steps"),
            ("sampling-steps", "num_inference_steps"),
            ("numInferenceSteps", "num_inference_steps"),
            ("cfg_scale", "guidance_scale"),
            ("guidance", "guidance_scale"),
            ("guidanceScale", "guidance_scale"),
            ("width", "size"),
            ("height", "size"),
            ("image_size", "size"),
            ("aspect_ratio", "size"),
            ("sampler_name", "scheduler"),
            ("sampler_index", "scheduler"),
            ("samples", "n"),
            ("batch_size", "n"),
            ("num_images_per_prompt", "n"),
            ("n_iter", "n"),
            ("noise_seed", "seed"),
            ("cache_dit_params", "cache_config"),
            ("enable_teacache", "cache_backend"),
            ("output_quality", "output_compression"),
            ("text_prompts", "prompt"),
        ] {
            assert_eq!(look_up(name), Foreign::Means(field), "{name}");
        }
        assert_eq!((look_up("strength"), look_up("promt")), (Foreign::NotHere, Foreign::Unknown));
    }

    #[test]
    fn no_name_means_two_fields() {
        let mut names: Vec<_> = MEANT.iter().flat_map(|(_, names)| *names).chain(&NOT_HERE).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|name| folded(name) == ***name), "names are written folded");
    }
}
