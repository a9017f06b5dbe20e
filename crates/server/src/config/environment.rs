//! Variables that look like settings and are not.
//!
//! Kubernetes (and Docker's links) describe every Service to the containers beside it by variables that
//! begin with the Service's name. For a Service named `afterimage` these are `AFTERIMAGE_PORT=tcp://...`,
//! `AFTERIMAGE_SERVICE_HOST` and more. They are not meant as settings, so they are ignored, with a warning.
//! Other variables that no flag has are most likely misspelt: a warning names them, too.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::{Arg, Command};

/// Every setting's variable begins with it.
const PREFIX: &str = "AFTERIMAGE_";
/// What the address of a Service begins with.
const SERVICE_SCHEMES: [&str; 3] = ["tcp://", "udp://", "sctp://"];

/// What stands in the environment beside the settings.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    service_links: BTreeSet<String>,
    /// Each with the variable that may be meant.
    unknown: Vec<(String, String)>,
}

impl Environment {
    /// Sorts the variables out that begin as those of `command` do.
    pub(crate) fn look_through(command: &Command, variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let known: BTreeSet<_> =
            command.get_subcommands().flat_map(Command::get_arguments).filter_map(variable).collect();
        let mut found = Self::default();
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with(PREFIX) {
                continue;
            }
            if is_service_link(&name, &value, known.contains(&name)) {
                found.service_links.insert(name);
            } else if !known.contains(&name) {
                let nearest = nearest(&name, &known);
                found.unknown.push((name, nearest));
            }
        }
        found.unknown.sort();
        found
    }

    /// The command without what it took from variables of a Service.
    pub(crate) fn without_service_links(&self, command: Command) -> Command {
        let is_link = |arg: &Arg| variable(arg).is_some_and(|name| self.service_links.contains(&name));
        let reset = |arg: Arg| if is_link(&arg) { arg.env(Resettable::Reset) } else { arg };
        command.mut_subcommands(|subcommand| subcommand.mut_args(reset))
    }

    /// What the operator should know, each in one line. Values are not shown: they may be keys.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.service_links.is_empty() {
            let names: Vec<_> = self.service_links.iter().map(String::as_str).collect();
            warnings.push(format!(
                "variables of a Kubernetes Service (or of a Docker link) are no settings and are ignored: {}. \
                 `enableServiceLinks: false` in the pod's spec keeps them out; set the port with --port, or with \
                 {PREFIX}PORT as a number",
                names.join(", ")
            ));
        }
        if !self.unknown.is_empty() {
            let named = |(name, nearest): &(String, String)| format!("{name} (did you mean {nearest}?)");
            let names: Vec<_> = self.unknown.iter().map(named).collect();
            warnings.push(format!("variables that are no settings are ignored: {}", names.join(", ")));
        }
        warnings
    }
}

fn variable(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

/// Whether Kubernetes made the variable: `X_SERVICE_HOST`, `X_SERVICE_PORT`, `X_SERVICE_PORT_NAME`,
/// `X_PORT=tcp://...`, and `X_PORT_80_TCP` alone or followed by `_PROTO`, `_PORT` or `_ADDR`. A setting's
/// own variable is one only with such an address as its value.
fn is_service_link(name: &str, value: &OsStr, is_setting: bool) -> bool {
    let value = value.to_string_lossy();
    let is_address = SERVICE_SCHEMES.iter().any(|scheme| value.starts_with(scheme));
    if name.ends_with("_PORT") && is_address {
        return true;
    }
    let is_service =
        name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_");
    !is_setting && (is_service || is_port_detail(name))
}

/// `X_PORT_80_TCP`, `X_PORT_80_TCP_ADDR` and the like.
fn is_port_detail(name: &str) -> bool {
    name.match_indices("_PORT_").any(|(start, infix)| {
        let mut words = name[start + infix.len()..].split('_');
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        words.next().is_some_and(is_number)
            && words.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
            && words.next().is_none_or(|detail| ["PROTO", "PORT", "ADDR"].contains(&detail))
            && words.next().is_none()
    })
}

fn nearest(name: &str, known: &BTreeSet<String>) -> String {
    let own = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let similarity = |known: &&String| strsim::jaro_winkler(&own(name), &own(known));
    let nearest = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    nearest.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn look_through(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Environment::look_through(&Cli::command(), variables)
    }

    #[test]
    fn variables_of_services_are_told_from_settings() {
        let of_services = [
            ("AFTERIMAGE_PORT", "tcp://10.96.0.7:8080"),
            ("AFTERIMAGE_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
            ("AFTERIMAGE_PORT_8080_TCP_ADDR", "10.96.0.7"),
            ("AFTERIMAGE_PORT_8080_TCP_PORT", "8080"),
            ("AFTERIMAGE_PORT_8080_TCP_PROTO", "tcp"),
            ("AFTERIMAGE_PORT_53_UDP", "udp://10.96.0.7:53"),
            ("AFTERIMAGE_SERVICE_HOST", "10.96.0.7"),
            ("AFTERIMAGE_SERVICE_PORT", "8080"),
            ("AFTERIMAGE_SERVICE_PORT_HTTP", "8080"),
            // Of a Service named afterimage-model.
            ("AFTERIMAGE_MODEL_PORT", "tcp://10.96.0.8:80"),
            ("AFTERIMAGE_MODEL_SERVICE_HOST", "10.96.0.8"),
            ("AFTERIMAGE_MODEL_PORT_80_TCP_ADDR", "10.96.0.8"),
        ];
        let found = look_through(&of_services);
        assert_eq!(found.service_links.len(), of_services.len(), "{found:?}");
        let warnings = found.warnings();
        assert_eq!(warnings.len(), 1);
        assert!(of_services.iter().all(|(name, _)| warnings[0].contains(name)), "{warnings:?}");
        assert!(warnings[0].contains("Kubernetes") && warnings[0].contains("enableServiceLinks: false"));
        assert!(!warnings[0].contains("10.96"), "{warnings:?}");

        let settings =
            [("AFTERIMAGE_PORT", "8080"), ("AFTERIMAGE_HOST", "::"), ("AFTERIMAGE_STEPS", "4"), ("PORT", "1")];
        assert!(look_through(&settings).warnings().is_empty());
        // A port that is no number is the operator's own mistake, and an error.
        assert!(look_through(&[("AFTERIMAGE_PORT", "80a")]).warnings().is_empty());
    }

    #[test]
    fn other_variables_are_named_with_the_nearest_setting() {
        let warnings = look_through(&[
            ("AFTERIMAGE_MODLE", "sk-secret"),
            ("AFTERIMAGE_BATCH_ROWS", "4"),
            ("AFTERIMAGE_PORTS", "tcp://10.96.0.7:8080"),
            ("AFTERIMAGE_PORT_8080", "1"),
        ])
        .warnings();
        assert_eq!(
            warnings,
            ["variables that are no settings are ignored: \
              AFTERIMAGE_BATCH_ROWS (did you mean AFTERIMAGE_MAX_BATCH_ROWS?), \
              AFTERIMAGE_MODLE (did you mean AFTERIMAGE_MODEL?), \
              AFTERIMAGE_PORTS (did you mean AFTERIMAGE_PORT?), \
              AFTERIMAGE_PORT_8080 (did you mean AFTERIMAGE_PORT?)"]
        );
    }
}
