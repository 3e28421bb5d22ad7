//! Orders: what an operator tells all instances. The backplane hears them, and the server's moderator carries
//! them out.

use crate::message::UserName;

/// One order. To carry it out twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Close the connections of this user.
    Disconnect(UserName),
    /// The bans may have changed: read them.
    ReadBans,
}
