//! How well and how fast pages are understood: `make forms CORPUS=DIR`, on any corpus in this format.
//!
//! `DIR/manifest.jsonl` has one object a line: `page` (a file below `DIR/data`), `kind` (comment, signup, login, newsletter,
//! other, none; null where nobody says), `fields` (role → positions), `submit` (positions), `not_fields` (positions that
//! nobody fills). A position is the place among all elements of the document, scripts off. Roles may have the names of
//! `corpus.rs` beside our own.
//!
//! Every page goes through what `pagehand inspect` does. `--hide-names` gives each `name` and `id` a random value first,
//! so that nothing is known by the names that common programs use. `--fit` fits the weights of the kinds to the corpus
//! (`fit.rs`), says how well weights fitted on one half do on the other, and writes them with `--write FILE`.
//! Without a corpus only the page of 10,000 elements is measured.

mod corpus;
mod fit;
mod score;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use corpus::{Corpus, Page};
use futures::StreamExt;
use pagehand::automation::forms::{self, Description, Role};
use pagehand::automation::inspect::inspect;
use pagehand::automation::{StepLimits, obstacles};
use pagehand::browser::{BrowserPool, BrowserSettings, EgressPolicy, TabOptions, ThirdParties};
use pagehand::commands::inspect::SavedPages;
use pagehand::site::Origins;
use score::Score;

/// Pages that are open at once, where time is not measured.
const AT_ONCE: usize = 4;
/// All the time a page gets.
const PAGE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Options {
    /// Directory with `manifest.jsonl` and `data/`
    corpus: Option<PathBuf>,
    /// Give each `name` and `id` a random value first
    #[arg(long)]
    hide_names: bool,
    /// Fit the weights of the kinds of forms
    #[arg(long)]
    fit: bool,
    /// With `--fit`: where to write the fitted `[kind.…]` tables
    #[arg(long, requires = "fit", value_name = "FILE")]
    write: Option<PathBuf>,
    /// With `--fit`: how strongly weights are pulled back to what they are
    #[arg(long, default_value_t = 1.0)]
    pull: f64,
    /// One page at a time, and how long each takes
    #[arg(long)]
    times: bool,
    /// Print every page whose kind, fields or button are wrong
    #[arg(long)]
    verbose: bool,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// A form of a page, with the places of its parts.
pub(crate) struct Found {
    pub fields: Vec<(Role, usize)>,
    pub submit: Option<usize>,
    pub evidence: BTreeMap<String, f64>,
    pub index: usize,
}

/// A page, as it was understood.
pub(crate) struct Seen {
    pub kind: String,
    pub forms: Vec<Found>,
    /// How long the description took in Chrome, there and back, and the judgement here.
    pub took: Option<(Duration, Duration)>,
}

struct Bench {
    browsers: BrowserPool,
    saved: SavedPages,
    options: Options,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let state = tempfile::Builder::new().prefix("pagehand-forms-").tempdir()?;
    open_to_chrome(state.path())?;
    let settings = BrowserSettings { state_dir: state.path().join("chrome"), ..BrowserSettings::default() };
    let bench =
        Bench { browsers: BrowserPool::new(settings), saved: SavedPages::serve().await.context("no port")?, options };
    let done = bench.run().await;
    bench.browsers.shutdown().await;
    done
}

/// Chrome's own user has to get to its profile below.
fn open_to_chrome(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

impl Bench {
    async fn run(&self) -> Result<()> {
        let Some(dir) = &self.options.corpus else {
            println!("no corpus: give a directory to score (make forms CORPUS=DIR)");
            return self.large_page().await;
        };
        let corpus = Corpus::read(dir)?;
        let seen = self.all(&corpus).await;
        let mut score = Score::default();
        for (page, seen) in corpus.pages.iter().zip(&seen) {
            match seen {
                Ok(seen) => score.add(page, seen, self.options.verbose),
                Err(error) => println!("{}: {error:#}", page.name),
            }
        }
        score.print();
        if self.options.times {
            print_times(seen.iter().flatten().filter_map(|seen| seen.took));
            self.large_page().await?;
        }
        if self.options.fit {
            let tables = fit::report(&corpus.pages, &seen, self.options.pull);
            if let Some(file) = &self.options.write {
                std::fs::write(file, fit::to_toml(&tables))
                    .with_context(|| format!("can't write {}", file.display()))?;
                println!("written to {}", file.display());
            }
        }
        Ok(())
    }

    async fn all(&self, corpus: &Corpus) -> Vec<Result<Seen>> {
        let at_once = if self.options.times { 1 } else { AT_ONCE };
        futures::stream::iter(&corpus.pages)
            .map(|page| async move {
                let content = page.content(self.options.hide_names)?;
                self.look(&page.file, content).await
            })
            .buffered(at_once)
            .collect()
            .await
    }

    /// What `pagehand inspect FILE` does, and where in the document it found what it found.
    async fn look(&self, file: &Path, content: Vec<u8>) -> Result<Seen> {
        let saved = self.saved.put(file, content);
        let mut private = Origins::default();
        private.insert_this_machine();
        let policy = EgressPolicy {
            enrolled: None,
            third_parties: ThirdParties::Assets,
            private: Arc::new(private),
            max_bytes: 1 << 30,
        };
        let deadline = tokio::time::Instant::now() + PAGE_LIMIT;
        let options = TabOptions { user_agent: None, proxy: None, policy, deadline };
        let tab = self.browsers.open(options).await?;
        let limits = StepLimits::default();
        let inspection =
            inspect(&tab, saved.url(), false, &limits).await.map_err(|failure| anyhow::anyhow!(failure.message))?;
        let main = tab.main_frame();
        let of_main = || inspection.forms.iter().filter(|form| form.frame.is_empty());
        let selectors: Vec<&str> = of_main()
            .flat_map(|form| {
                let submit = form.form.submit.as_ref().map(|button| button.selector.as_str());
                form.fields().map(|(_, field)| field.selector.as_str()).chain(submit)
            })
            .collect();
        // What a shadow root holds has no place in the document.
        const PLACES: &str = "(ph, all) => { const order = new Map([...document.querySelectorAll('*')].map((el, i) => [el, i])); \
            return all.map(css => { if (css.includes(' >>> ')) return null; const found = document.querySelectorAll(css); \
            return found.length === 1 ? order.get(found[0]) : -1; }); }";
        let places: Vec<Option<i64>> = tab.call(&main, PLACES, &[serde_json::json!(selectors)], limits.look).await?;
        let mut places = selectors.iter().zip(places);
        let mut forms = Vec::new();
        for form in of_main() {
            let mut place = || -> Result<Option<usize>> {
                let (css, place) = places.next().context("a selector has no answer")?;
                anyhow::ensure!(place != Some(-1), "`{css}` does not find one element");
                Ok(place.and_then(|place| usize::try_from(place).ok()))
            };
            let mut fields = Vec::new();
            for (role, _) in form.fields() {
                fields.extend(place()?.map(|at| (role, at)));
            }
            let submit = if form.form.submit.is_some() { place()? } else { None };
            let form = &form.form;
            forms.push(Found { fields, submit, evidence: form.evidence.clone(), index: form.index });
        }
        let mut took = None;
        if self.options.times || self.options.corpus.is_none() {
            let signs = forms::describe_signs(obstacles::captcha_signs());
            let begun = Instant::now();
            let page: Description = tab.call(&main, forms::DESCRIBE, &[signs], limits.look).await?;
            let described = begun.elapsed();
            let begun = Instant::now();
            let judged = forms::classify(&page);
            took = Some((described, begun.elapsed()));
            drop(judged);
        }
        tab.close().await;
        Ok(Seen { kind: inspection.kind.to_owned(), forms, took })
    }

    /// A long discussion of 10,000 elements, with its forms at the end.
    async fn large_page(&self) -> Result<()> {
        let mut html = String::from("<!doctype html><title>A long talk</title><h1>A long talk</h1>");
        for n in 0..2_500 {
            html += &format!("<div class=comment><p>Number {n} <a href='#{n}'>reply</a></p></div>");
        }
        html += "<h2>Leave a comment</h2><form method=post><label>Name <input name=a></label><label>E-mail <input type=email name=b>\
                 </label><label>Comment <textarea name=c></textarea></label><button>Post comment</button></form>";
        let mut times = Vec::new();
        for _ in 0..9 {
            let seen = self.look(Path::new("large.html"), html.clone().into_bytes()).await?;
            anyhow::ensure!(seen.kind == "comment", "the large page is taken for {}", seen.kind);
            times.extend(seen.took);
        }
        println!("a page of 10,000 elements:");
        print_times(times.into_iter());
        Ok(())
    }
}

fn print_times(times: impl Iterator<Item = (Duration, Duration)>) {
    let (mut chrome, mut ours): (Vec<Duration>, Vec<Duration>) = times.unzip();
    for (name, list) in [("description in Chrome, there and back", &mut chrome), ("judgement", &mut ours)] {
        list.sort();
        let of = |share: f64| list.get(((list.len() as f64 * share) as usize).min(list.len().saturating_sub(1)));
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        println!(
            "  {name:<40} median {:>7.1} ms   p95 {:>7.1} ms   most {:>7.1} ms   ({} measured)",
            ms(of(0.5)),
            ms(of(0.95)),
            ms(list.last()),
            list.len()
        );
    }
}

/// Whether a page belongs to the first or the second half: by its name, the same in every run.
pub(crate) fn half(page: &Page) -> usize {
    let hash = page
        .name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 17) as usize % 2
}
