//! Policies on where a page's traffic may go, for sites of this machine.

use std::sync::Arc;

use pagehand::browser::{EgressPolicy, ThirdParties};
use pagehand::site::{Origin, Origins};
use url::Url;

/// The origins of these addresses are enrolled, and may be inside one's own network; under the name `localhost` too.
pub fn of(urls: &[&str]) -> EgressPolicy {
    let mut origins = Origins::default();
    for url in urls {
        for url in [(*url).to_owned(), url.replace("127.0.0.1", "localhost")] {
            origins.insert(&Origin::of(&Url::parse(&url).expect("an address")).expect("http or https"));
        }
    }
    let origins = Arc::new(origins);
    EgressPolicy {
        enrolled: Some(origins.clone()),
        third_parties: ThirdParties::Assets,
        private: origins,
        max_bytes: 1 << 30,
    }
}
