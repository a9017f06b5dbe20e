//! Who can reach a server, and whether that fits its keys.

use std::net::SocketAddr;

use tracing::Level;

use crate::api::{AccessSettings, MIN_KEY_CHARS};
use crate::error::ProgramError;
use crate::terminal;

/// Looks at the address that the server listens on. Others that can reach it must not get in by guessing; that
/// they get in without a key is said once.
pub(super) fn check(address: SocketAddr, host: &str, settings: &mut AccessSettings) -> Result<(), ProgramError> {
    let is_local = address.ip().to_canonical().is_loopback();
    settings.local_host = is_local.then(|| host.to_owned());
    let keys = &settings.access.keys;
    let short = keys.short().join(", ");
    match (short.is_empty(), is_local || settings.allows_short_keys) {
        (true, _) if keys.is_empty() && !is_local => warn(&format!(
            "anyone who can reach {address} may use this server: there are no API keys; set AFTERIMAGE_API_KEY or \
             --api-key-file, or listen on 127.0.0.1 (--host)"
        )),
        (true, _) => {}
        (false, true) => warn(&format!(
            "these API keys have fewer than {MIN_KEY_CHARS} characters and can be guessed: {short}; `openssl rand -hex 16` \
             makes better ones"
        )),
        (false, false) => {
            let message = format!(
                "it is false, and other machines can reach {address}, while these API keys have fewer than \
                 {MIN_KEY_CHARS} characters and can be guessed: {short}; `openssl rand -hex 16` makes better ones"
            );
            return Err(ProgramError::setting("allow-short-keys", message));
        }
    }
    Ok(())
}

/// In the log, or beside it where the log has no warnings.
fn warn(message: &str) {
    match tracing::enabled!(Level::WARN) {
        true => tracing::warn!("{message}"),
        false => terminal::note(format_args!("warning: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Access, ApiKeys};
    use crate::secret::Secret;

    fn settings(key: Option<&str>, allows_short_keys: bool) -> AccessSettings {
        let mut keys = ApiKeys::default();
        key.into_iter().for_each(|key| keys.add(&Secret::from(key)).unwrap());
        let access = Access { keys, ..Access::default() };
        AccessSettings { access, allows_short_keys, ..AccessSettings::default() }
    }

    #[test]
    fn short_keys_are_for_this_machine_unless_told_otherwise() {
        let check = |address: &str, key, allowed| {
            let address = SocketAddr::new(address.parse().unwrap(), 1);
            check(address, "x", &mut settings(key, allowed)).map_err(|error| error.to_string())
        };
        let (short, long) = (Some("ci:sk-1"), Some("0123456789abcdef"));
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(address, short, false), Ok(()), "{address}");
        }
        for address in ["0.0.0.0", "::", "192.168.1.5"] {
            let message = check(address, short, false).unwrap_err();
            assert!(message.starts_with("--allow-short-keys: it is false") && message.contains(": ci;"), "{message}");
            assert!(!message.contains("sk-1"));
            assert_eq!((check(address, short, true), check(address, long, false)), (Ok(()), Ok(())), "{address}");
            assert_eq!(check(address, None, false), Ok(()), "{address}");
        }
    }

    #[test]
    fn only_a_server_of_this_machine_knows_its_names() {
        for (address, local) in [("127.0.0.2", Some("name")), ("0.0.0.0", None)] {
            let mut settings = settings(None, false);
            check(SocketAddr::new(address.parse().unwrap(), 1), "name", &mut settings).unwrap();
            assert_eq!(settings.local_host.as_deref(), local);
        }
    }
}
