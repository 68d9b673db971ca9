//! Chrome: processes, tabs, frames, elements. The only module that speaks the DevTools protocol.

mod capture;
mod chrome;
mod egress;
mod element;
mod error;
mod events;
mod fetch;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod inline;
mod install;
mod json;
mod lists;
mod log;
mod navigation;
mod observe;
mod pass;
mod pool;
mod process;
mod profile;
mod router;
mod setup;
mod signature;
mod standing;
mod state;
mod submit;
mod tab;
mod types;
mod wire;

pub use egress::{Denial, DenialKind, EgressLimits, EgressPolicy, EgressProxy, Resolver, ThirdParties, UpstreamProxy};
pub use error::BrowserError;
pub use fetch::{Fetch, fetch};
pub use lists::Entry;
pub use pass::SitePass;
pub use pool::BrowserPool;
pub use signature::Signer;
pub use tab::Tab;
pub use types::*;
