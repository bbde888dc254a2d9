//! Bodies: requests are bounded in size and pace on their way in, responses are counted on their way out.
//!
//! It knows bytes, not what they mean.

mod request;
mod response;
mod unread;

pub use request::{BodyError, RequestBody};
pub(crate) use response::{BoxError, Payload, RequestGuard, ResponseBody};
pub(crate) use unread::{Unread, discard};
