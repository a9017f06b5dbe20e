//! Whose request it is.

/// A client, where clients are told apart: what they share is shared fairly between owners. Requests that name none
/// have one owner together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(u128);

impl Owner {
    /// The owner with this number, which the caller gives to one client only.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }
}
