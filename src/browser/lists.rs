//! Choosing from lists: the browser's own, and those that a script draws.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::error::BrowserError;
use super::tab::Tab;
use super::types::ElementRef;

/// How long a list that stays open after a choice is given to close at a second press.
const CLOSES: Duration = Duration::from_millis(300);

/// What is looked for in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Its value, or its label; a country also by its code, and by its name in English where the list is in the page's
    /// language.
    Named(&'a str),
    /// A day, a month or a year, by its number without leading zeros.
    OfDate(&'a str),
}

impl Tab {
    /// Chooses the entry of a `<select>` whose value, else whose label is `wanted`.
    ///
    /// # Errors
    /// As [`Tab::click`]; [`BrowserError::NoSuchOption`].
    pub async fn select(&self, element: &ElementRef, wanted: &str, limit: Duration) -> Result<(), BrowserError> {
        let deadline = self.end_of(limit)?;
        let choose = "(ph, n, limit, wanted) => ph.select(n, wanted, limit)";
        let choose = async {
            let outcome = self.act_raw(element, choose, &[json!(wanted)], deadline).await?;
            if outcome.missing {
                return Err(BrowserError::NoSuchOption { wanted: wanted.to_owned() });
            }
            outcome.into_result()
        };
        self.unless_faulty(choose).await.map(drop)
    }

    /// Chooses from a list that a script draws: opens it by a click where it is not open, clicks the option, wherever in
    /// the document it is, and sees that it is taken.
    ///
    /// # Errors
    /// As [`Tab::click`], of the list and of the option; [`BrowserError::NoSuchOption`]; [`BrowserError::NotFilled`] when
    /// the list shows something else afterwards.
    pub async fn choose(&self, element: &ElementRef, entry: Entry<'_>, limit: Duration) -> Result<(), BrowserError> {
        let deadline = self.end_of(limit)?;
        self.unless_faulty(self.choose_until(element, entry, deadline)).await
    }

    async fn choose_until(
        &self,
        element: &ElementRef,
        entry: Entry<'_>,
        deadline: Instant,
    ) -> Result<(), BrowserError> {
        if self.act(element, "(ph, n) => ph.closed(n)", &[], deadline).await? == "closed" {
            self.click_until(element, deadline).await?;
        }
        let (wanted, of_date) = match entry {
            Entry::Named(wanted) => (wanted, false),
            Entry::OfDate(wanted) => (wanted, true),
        };
        let find = "(ph, n, limit, wanted, ofDate) => ph.option(n, wanted, ofDate, limit)";
        let outcome = self.act_raw(element, find, &[json!(wanted), json!(of_date)], deadline).await?;
        if outcome.missing {
            return Err(BrowserError::NoSuchOption { wanted: wanted.to_owned() });
        }
        let handle = outcome.into_result()?;
        let option = u32::try_from(handle.as_u64().unwrap_or_default()).unwrap_or_default();
        self.click_until(&ElementRef { frame: element.frame.clone(), handle: option }, deadline).await?;
        let taken = "(ph, n, limit, option) => ph.chose(n, option, limit)";
        if self.act(element, taken, &[json!(option)], deadline).await? == "open" {
            // A list of which several may be chosen stays open, over what comes below.
            let soon = deadline.min(Instant::now() + CLOSES);
            match self.click_until(element, soon).await {
                Ok(()) | Err(BrowserError::NotActionable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
