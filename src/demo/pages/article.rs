//! The magazine's pages: front page, articles, frames with their threads, search.

use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::X_FRAME_OPTIONS;
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;

use super::discussion::{self, Thread, Wish};
use super::visitor::Visitor;
use super::{layout, manners, prose};
use crate::demo::articles::{ARTICLES, Article, Discussion, Manners, Scene};
use crate::demo::site::Site;

/// `GET /`
pub(in crate::demo) async fn front_page() -> Markup {
    let mut listed = ARTICLES.iter().filter(|article| article.manners == Manners::Serves);
    let lead = listed.next();
    layout::magazine(
        "Stories from the water’s edge",
        html! {
            main #content .front {
                @if let Some(article) = lead {
                    a.lead href=(article.path()) {
                        img src={ "/images/" (article.scene.name()) "-dusk.svg" } alt="" width="960" height="540";
                        div { p.kicker { (article.section) } h1 { (article.title) } p.standfirst { (article.standfirst) } p.byline { "By " (article.author) } }
                    }
                }
                div.cards {
                    @for (index, article) in listed.enumerate() {
                        a.card href=(article.path()) {
                            @if index < 6 {
                                img src={ "/images/" (article.scene.name()) @if index % 2 == 0 { "-day.svg" } @else { "-dusk.svg" } } alt="" width="480" height="270" loading="lazy";
                            }
                            p.kicker { (article.section) }
                            h2 { (article.title) }
                            p { (article.standfirst) }
                        }
                    }
                }
            }
        },
    )
}

/// `GET /articles/{slug}`
pub(in crate::demo) async fn show(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    Query(wish): Query<Wish>,
) -> Response {
    let Some(article) = Article::find(&slug) else { return not_found().await.into_response() };
    if let Some(answer) = manners::instead(&site, article).await {
        return answer;
    }
    let thread = Thread::of(&site, article, &visitor, &wish);
    visitor.answer(page(&site, article, &thread))
}

/// An article with its discussion below.
pub(super) fn page(site: &Site, article: &Article, thread: &Thread) -> Markup {
    let [first, second, third] = article.scene.in_order();
    let text = prose::paragraphs(article.scene);
    layout::magazine(
        article.title,
        html! {
            div.progress aria-hidden="true" { span #progress {} }
            main #content .story {
                @if let Some(refusal) = &thread.refusal { p.form-error.banner role="alert" { (refusal) } }
                article {
                    header {
                        p.kicker { (article.section) }
                        h1 { (article.title) }
                        p.standfirst { (article.standfirst) }
                        p.byline { "By " strong { (article.author) } " · " time datetime=(article.date) { (layout::long_date(article.date)) } " · 6 min read" }
                    }
                    (figure(first, "dusk", "hero"))
                    @for paragraph in &text[..2] { p { (paragraph) } }
                    (figure(second, "day", "aside"))
                    @for paragraph in &text[2..4] { p { (paragraph) } }
                    blockquote { p { "You learn to look twice." } }
                    (figure(third, "day", "wide"))
                    @for paragraph in &text[4..] { p { (paragraph) } }
                }
                aside.sidebar {
                    section { h2 { "About the author" } p { strong { (article.author) } " writes about places that are a little out of the way. Lives in one." } }
                    section.most-read {
                        h2 { "Most read" }
                        ol { @for other in ARTICLES.iter().filter(|other| other.slug != article.slug).take(5) { li { a href=(other.path()) { (other.title) } } } }
                    }
                    section.tides {
                        h2 { "Tides today" }
                        table { tbody {
                            tr { th { "High" } td { "04:52" } td { "4.1 m" } } tr { th { "Low" } td { "11:08" } td { "0.7 m" } }
                            tr { th { "High" } td { "17:21" } td { "4.3 m" } } tr { th { "Low" } td { "23:31" } td { "0.6 m" } }
                        } }
                    }
                }
                (discussion::section(site, article, thread))
            }
            @match article.discussion {
                Discussion::Fetch => script defer src="/assets/comments.js" {},
                Discussion::ConsentDialog => script defer src="/assets/consent.js" {},
                Discussion::Wall => script defer src="/assets/wall.js" {},
                _ => {}
            }
        },
    )
}

fn figure(scene: Scene, light: &str, class: &str) -> Markup {
    html! {
        figure class=(class) {
            img src={ "/images/" (scene.name()) "-" (light) ".svg" } alt={ "Drawing of a " (scene.name()) } width="960" height="540";
            figcaption { (scene.caption()) }
        }
    }
}

/// `GET /embed/{slug}`: the thread of an article that shows it in a frame.
pub(in crate::demo) async fn embed(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    Query(wish): Query<Wish>,
) -> Response {
    match Article::find(&slug).filter(|article| article.discussion == Discussion::Frame) {
        Some(article) => {
            let thread = Thread::of(&site, article, &visitor, &wish);
            visitor.answer(layout::frame("Comments", discussion::framed(article, &thread, &format!("/embed/{slug}"))))
        }
        None => not_found().await.into_response(),
    }
}

/// `GET /threads/{slug}` at the widgets' origin: a thread for the frame of another site. No cookies: a frame of another
/// site has none.
pub(in crate::demo) async fn widget(
    State(site): State<Arc<Site>>,
    Path(slug): Path<String>,
    Query(wish): Query<Wish>,
) -> Response {
    let Some(article) = Article::find(&slug) else { return not_found().await.into_response() };
    let thread = Thread::without_cookie(&site, article, &wish);
    let page = layout::frame("Comments", discussion::framed(article, &thread, &format!("/threads/{slug}")));
    match article.discussion {
        Discussion::ForeignFrame => page.into_response(),
        Discussion::RefusingFrame => ([(X_FRAME_OPTIONS, "DENY")], page).into_response(),
        _ => not_found().await.into_response(),
    }
}

/// What to look for.
#[derive(Debug, Deserialize)]
pub(in crate::demo) struct Search {
    #[serde(default)]
    q: String,
}

/// `GET /search`
pub(in crate::demo) async fn search(Query(search): Query<Search>) -> Markup {
    let needle = search.q.to_lowercase();
    let found: Vec<_> = ARTICLES
        .iter()
        .filter(|article| article.manners == Manners::Serves)
        .filter(|article| {
            [article.title, article.standfirst, article.section]
                .iter()
                .any(|text| text.to_lowercase().contains(&needle))
        })
        .collect();
    layout::magazine(
        "Search",
        html! {
            main #content .front {
                h1 { "Search" }
                p { (found.len()) @if found.len() == 1 { " story" } @else { " stories" } " for “" (search.q) "”" }
                div.cards { @for article in found { a.card href=(article.path()) { p.kicker { (article.section) } h2 { (article.title) } p { (article.standfirst) } } } }
            }
        },
    )
}

/// `POST /newsletter`
pub(in crate::demo) async fn newsletter(Form(_fields): Form<super::Fields>) -> Redirect {
    Redirect::to("/?subscribed=1")
}

/// `GET /recaptcha/api2/anchor`: the inside of the CAPTCHA's frame.
pub(in crate::demo) async fn captcha_frame() -> Markup {
    html! {
        (PreEscaped("<!DOCTYPE html>"))
        html lang="en" {
            head { meta charset="utf-8"; title { "reCAPTCHA" } link rel="stylesheet" href="/assets/captcha.css"; }
            body {
                span.recaptcha-checkbox #recaptcha-anchor role="checkbox" aria-checked="false" tabindex="0" aria-labelledby="label" {}
                label #label { "I’m not a robot" }
                span.logo { "reCAPTCHA" br; small { "Privacy · Terms" } }
            }
        }
    }
}

/// Any other path.
pub(in crate::demo) async fn not_found() -> (StatusCode, Markup) {
    let page = layout::magazine(
        "Page not found",
        html! { main #content .front { h1 { "This page has gone out with the tide" } p { "It may come back. Until then, try the " a href="/" { "front page" } "." } } },
    );
    (StatusCode::NOT_FOUND, page)
}
