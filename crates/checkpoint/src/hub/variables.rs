//! Environment variables, and what `~` and `$NAME` in them stand for.
//!
//! A shell expands them; systemd, Docker and the readers of env files do not. huggingface_hub therefore expands
//! them itself (`os.path.expanduser`, then `os.path.expandvars`), and this does the same.

use std::path::PathBuf;

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Variables of a process.
pub(super) struct Variables<'a> {
    lookup: Lookup<'a>,
    home: Option<PathBuf>,
}

/// What is set; text that is no UTF-8 is kept as far as it can be read.
fn of_process(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl<'a> Variables<'a> {
    /// Those of this process.
    pub(super) fn of_process() -> Variables<'static> {
        Variables { lookup: &of_process, home: std::env::home_dir() }
    }

    #[cfg(test)]
    pub(super) fn new(lookup: Lookup<'a>, home: Option<PathBuf>) -> Self {
        Self { lookup, home }
    }

    pub(super) fn home(&self) -> PathBuf {
        self.home.clone().unwrap_or_default()
    }

    /// The first of the names that is set to something, and what to.
    pub(super) fn first<'b>(&self, names: &[&'b str]) -> Option<(&'b str, String)> {
        let set = |name: &&'b str| Some((*name, (self.lookup)(name).filter(|value| !value.trim().is_empty())?));
        names.iter().find_map(set)
    }

    /// The path that the first of the names is set to.
    pub(super) fn path(&self, names: &[&str]) -> Option<PathBuf> {
        self.first(names).map(|(_, value)| PathBuf::from(self.expanded(&value)))
    }

    /// A path with `~`, `$NAME` and `${NAME}` replaced; what is not set stays as it is.
    pub(super) fn expanded(&self, path: &str) -> String {
        let path = match (path.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", home.display()),
            _ => path.to_owned(),
        };
        let mut parts = path.split('$');
        let mut expanded = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let length = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
            let (name, rest) = match part.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some(braced) => braced,
                None => part.split_at(length),
            };
            match (self.lookup)(name).filter(|_| !name.is_empty()) {
                Some(value) => expanded.extend([value.as_str(), rest]),
                None => expanded.extend(["$", part]),
            }
        }
        expanded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_expanded_as_python_does() {
        let lookup = |name: &str| {
            [("HOME", "/home/me"), ("A_1", "a")].into_iter().find(|(key, _)| *key == name).map(|(_, v)| v.to_owned())
        };
        let variables = Variables::new(&lookup, Some(PathBuf::from("/home/me")));
        for (path, expected) in [
            ("~", "/home/me"),
            ("~/hf", "/home/me/hf"),
            ("~other/hf", "~other/hf"),
            ("/x/~", "/x/~"),
            ("$HOME/hf", "/home/me/hf"),
            ("${HOME}/$A_1-b", "/home/me/a-b"),
            ("$A_1$A_1", "aa"),
            ("/x/$UNSET/${UNSET}", "/x/$UNSET/${UNSET}"),
            ("/x/$", "/x/$"),
            ("/x/${HOME", "/x/${HOME"),
        ] {
            assert_eq!(variables.expanded(path), expected, "{path}");
        }
    }
}
