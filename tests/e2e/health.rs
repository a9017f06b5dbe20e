//! `afterimage health`, and the container image that asks it.

use std::path::Path;
use std::process::Command;

use crate::server::{PROGRAM, Server};

/// Exit code, standard output and standard error of `health`.
fn health(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output = Command::new(program).arg("health").args(arguments).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn health_tells_a_server_that_is_well_from_one_that_is_not() {
    let program = Path::new(PROGRAM);
    let server = Server::start(&[]);
    let (host, port) = server.address.rsplit_once(':').unwrap();
    let (host, port) = (host.to_owned(), port.to_owned());
    let (code, stdout, stderr) = health(program, &["--port", &port], &[]);
    assert_eq!((code, stdout), (0, format!("http://{host}:{port}/health/ready: ready\n")), "{stderr}");
    // As in the image, where the server listens everywhere; no proxy is used.
    let variables =
        [("AFTERIMAGE_HOST", "0.0.0.0"), ("AFTERIMAGE_PORT", port.as_str()), ("http_proxy", "http://127.0.0.1:9")];
    let (code, stdout, stderr) = health(program, &["live"], &variables);
    assert_eq!((code, stdout), (0, format!("http://127.0.0.1:{port}/health/live: alive\n")), "{stderr}");

    server.terminate();
    assert!(server.wait().success());
    let (code, _, stderr) = health(program, &["--port", &port], &[]);
    assert_eq!((code, stderr.lines().count()), (1, 1), "{stderr}");
    assert!(stderr.starts_with(&format!("error: http://127.0.0.1:{port}/health/ready: ")), "{stderr}");
    assert_eq!(health(program, &["--port", "eighty"], &[]).0, 2);
    assert_eq!(health(program, &["alive"], &[]).0, 2);
}

#[test]
fn a_server_that_wants_a_key_or_is_somebody_else_is_not_well() {
    let server = Server::with_key(Some("sk-a"), &["--protect-health"], |command| {
        command.env("AFTERIMAGE_API_KEY", "sk-a");
    });
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let (code, _, stderr) = health(Path::new(PROGRAM), &["--port", port], &[]);
    assert!(code == 1 && stderr.contains("401"), "{stderr}");
    // Liveness never needs one.
    assert_eq!(health(Path::new(PROGRAM), &["live", "--port", port], &[]).0, 0);
}

#[test]
#[cfg(target_os = "linux")]
fn the_servers_port_is_found_whatever_set_it() {
    // Other tests have servers of the same program: this one has a name of its own.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("afterimage");
    std::fs::hard_link(PROGRAM, &program).or_else(|_| std::fs::copy(PROGRAM, &program).map(drop)).unwrap();
    let start = |flags: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("serve").args(flags);
        Server::from_command(command, None)
    };
    // Where no server is found, the default port is asked, whatever listens there.
    let (_, stdout, stderr) = health(&program, &[], &[("AFTERIMAGE_PORT", "0")]);
    assert!((stdout + &stderr).contains("http://127.0.0.1:8080/health/ready"), "{stderr}");
    let server = start(&[]);
    let (code, stdout, stderr) = health(&program, &[], &[]);
    assert_eq!((code, stdout), (0, format!("http://{}/health/ready: ready\n", server.address)), "{stderr}");
    let other = start(&["--host", "::1"]);
    let (code, _, stderr) = health(&program, &[], &[]);
    assert!(code == 2 && stderr.contains("--port") && stderr.contains("several servers"), "{stderr}");
    drop(server);
    let (code, stdout, stderr) = health(&program, &["live"], &[]);
    assert_eq!((code, stdout), (0, format!("http://{}/health/live: alive\n", other.address)), "{stderr}");
}

/// The container image, as far as it can be tried without one.
mod image {
    use super::*;

    /// What follows an instruction of the Dockerfile, continued lines joined.
    fn instructions(name: &str) -> Vec<String> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Dockerfile");
        let text = std::fs::read_to_string(path).unwrap();
        let text: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let text = text.replace("\\\n", " ");
        text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned).collect()
    }

    /// The words of an instruction in JSON.
    fn words(name: &str) -> Vec<String> {
        let instruction = instructions(name).pop().unwrap();
        serde_json::from_str(&instruction[instruction.find('[').unwrap()..]).unwrap()
    }

    /// What a container with these variables and this command would print with `--print-config`.
    fn container(variables: &[(&str, &str)], command: &[&str]) -> (String, String) {
        assert_eq!(words("ENTRYPOINT"), ["afterimage"]);
        let default: Vec<_> = words("CMD");
        let default: Vec<_> = default.iter().map(String::as_str).collect();
        let own = instructions("ENV").join(" ");
        let own = own.split_whitespace().filter_map(|pair| pair.split_once('='));
        let own = own.filter(|(name, _)| name.starts_with("AFTERIMAGE_"));
        let command = if command.is_empty() { &default } else { command };
        let mut program = Command::new(PROGRAM);
        program.args(command).arg("--print-config").envs(own).envs(variables.iter().copied());
        let output = program.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }

    #[test]
    fn everything_said_to_docker_run_wins() {
        for (variables, command, lines) in [
            (&[][..], &[][..], ["host = \"0.0.0.0\" # AFTERIMAGE_HOST", "port = 8080 # default"]),
            (
                &[("AFTERIMAGE_HOST", "::"), ("AFTERIMAGE_PORT", "9000")],
                &[],
                ["host = \"::\" # AFTERIMAGE_HOST", "port = 9000 # AFTERIMAGE_PORT"],
            ),
            (
                &[],
                &["serve", "--host", "127.0.0.1", "--port", "9000"],
                ["host = \"127.0.0.1\" # --host", "port = 9000 # --port"],
            ),
        ] {
            let (stdout, stderr) = container(variables, command);
            assert_eq!(stderr, "");
            assert!(lines.iter().all(|line| stdout.lines().any(|found| found == *line)), "{lines:?} in {stdout}");
        }
    }

    #[test]
    fn the_health_check_is_a_command_of_the_program() {
        let check = words("HEALTHCHECK");
        assert_eq!(check[0], "afterimage");
        let server = Server::start(&["--host", "0.0.0.0"]);
        let (_, port) = server.address.rsplit_once(':').unwrap();
        let variables = [("AFTERIMAGE_HOST", "0.0.0.0"), ("AFTERIMAGE_PORT", port)];
        let output = Command::new(PROGRAM).args(&check[1..]).envs(variables).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    fn the_image_is_made_from_exact_images_and_says_what_it_is() {
        for image in instructions("FROM").iter().filter(|image| !image.starts_with("scratch ")) {
            let (_, digest) = image.split_once("@sha256:").unwrap_or_else(|| panic!("{image} has no digest"));
            let digest = digest.split_whitespace().next().unwrap();
            assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{image}");
        }
        assert!(instructions("ARG").contains(&format!("VERSION={}", env!("CARGO_PKG_VERSION"))));
        let labels = instructions("LABEL").join(" ");
        for label in ["title", "description", "licenses", "version", "revision", "source", "created", "base.digest"] {
            assert!(labels.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
        }
    }
}
