//! What the pages of each of the two sites have in common.

use chrono::NaiveDate;
use maud::{DOCTYPE, Markup, html};

/// An icon in the page itself, so that browsers ask for none.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='3' fill='%230f5c63'/%3E%3Cpath d='M2 10q3-4 6 0t6 0' stroke='%23fff' stroke-width='2' fill='none'/%3E%3C/svg%3E";

/// An ISO date as the magazine writes it: `18 May 2026`. Anything else stays as it is.
pub(super) fn long_date(date: &str) -> String {
    date.parse::<NaiveDate>().map_or_else(|_| date.to_owned(), |date| date.format("%-d %B %Y").to_string())
}

/// A page of the magazine.
pub(super) fn magazine(title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · The Tidewater Review" }
                link rel="icon" href=(ICON);
                link rel="stylesheet" href="/assets/paper.css";
                script defer src="/assets/paper.js" {}
            }
            body {
                a.skip href="#content" { "Skip to content" }
                header.masthead {
                    div.masthead-top {
                        p.dateline { "Thursday, 21 May 2026" }
                        a.nameplate href="/" { "The Tidewater Review" }
                        form.search role="search" action="/search" method="get" {
                            label.visually-hidden for="q" { "Search" }
                            input #q type="search" name="q" placeholder="Search" autocomplete="off";
                            button type="submit" aria-label="Search" { "⌕" }
                        }
                    }
                    nav.sections aria-label="Sections" {
                        @for section in ["Coast", "Journeys", "Table", "Workshop", "Letters"] {
                            a href={ "/search?q=" (section) } { (section) }
                        }
                        a.account href="/login" { "Log in" }
                        a.account.join href="/join" { "Join" }
                    }
                }
                (content)
                footer.colophon {
                    div {
                        p.nameplate { "The Tidewater Review" }
                        p { "Printed on the coast since 1897, on screens since 1996." }
                    }
                    form.newsletter action="/newsletter" method="post" {
                        label for="newsletter-email" { "One letter a week, on Sundays" }
                        div.row {
                            input #newsletter-email type="email" name="newsletter_email" placeholder="you@example.org" required;
                            button type="submit" { "Subscribe" }
                        }
                    }
                    p.small { "© 2026 Tidewater Press Cooperative · " a href="/" { "Imprint" } " · " a href="/" { "Privacy" } }
                }
            }
        }
    }
}

/// A page of the magazine that holds a thread of comments and nothing else, to be framed.
pub(super) fn frame(title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="icon" href=(ICON);
                link rel="stylesheet" href="/assets/paper.css";
            }
            body.framed { (content) }
        }
    }
}

/// A page of the web app: a card to fill in, and a picture beside it.
pub(super) fn app(title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Almanac" }
                link rel="icon" href=(ICON);
                link rel="stylesheet" href="/assets/almanac.css";
                script defer src="/assets/almanac.js" {}
            }
            body {
                div.split {
                    main.panel {
                        a.brand href="/" { span.mark aria-hidden="true" { "◐" } "Almanac" }
                        (content)
                        p.legal { "Almanac keeps your tides, dates and chores in one place. No advertising, ever." }
                    }
                    aside.poster aria-hidden="true" {
                        div.month {
                            p { "June" }
                            div.days { @for day in 1..=30 { span.full[day == 14].new[day == 29].today[day == 18] { (day) } } }
                        }
                        p.quote { "“We stopped missing low water.”" br; span { "The Skerry Point rowing club" } }
                    }
                }
            }
        }
    }
}

/// A page without a site around it, as servers and proxies send by themselves.
pub(super) fn bare(title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="icon" href=(ICON);
                style { "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:12vh auto;padding:0 1.25rem;color:#222;background:#fff}hr{border:0;border-top:1px solid #ccc;margin:2rem 0}.server{color:#666;font-size:.85rem}a{color:#0f5c63}@media(prefers-color-scheme:dark){body{background:#16181a;color:#e6e3dc}hr{border-color:#3a3f42}.server{color:#9aa0a3}a{color:#6cc5c9}}" }
            }
            body { (content) }
        }
    }
}
