//! Where clients find this server: behind which prefix of a proxy, and under which public URL.

mod public_url;
mod root_path;

pub(crate) use public_url::PublicUrl;
pub(crate) use root_path::RootPath;
