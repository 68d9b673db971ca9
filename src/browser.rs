//! Chrome: processes, tabs, frames, elements. The only module that speaks the DevTools protocol.

mod capture;
mod chrome;
mod egress;
mod element;
mod error;
mod events;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod install;
mod json;
mod log;
mod navigation;
mod observe;
mod pass;
mod pool;
mod process;
mod profile;
mod router;
mod setup;
mod standing;
mod state;
mod submit;
mod tab;
mod types;
mod wire;

pub use egress::{Denial, DenialKind, EgressLimits, EgressPolicy, EgressProxy, ThirdParties, UpstreamProxy};
pub use error::BrowserError;
pub use pass::SitePass;
pub use pool::BrowserPool;
pub use tab::Tab;
pub use types::*;
