//! Stylesheets, scripts and drawings, all inside the binary.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::demo::articles::Scene;

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// `GET /assets/{name}`
pub(in crate::demo) async fn file(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "paper.css" => (CSS, include_str!("../assets/paper.css")),
        "almanac.css" => (CSS, include_str!("../assets/almanac.css")),
        "captcha.css" => (CSS, include_str!("../assets/captcha.css")),
        "paper.js" => (JS, include_str!("../assets/paper.js")),
        "almanac.js" => (JS, include_str!("../assets/almanac.js")),
        "comments.js" => (JS, include_str!("../assets/comments.js")),
        "consent.js" => (JS, include_str!("../assets/consent.js")),
        "wall.js" => (JS, include_str!("../assets/wall.js")),
        "frame.js" => (JS, include_str!("../assets/frame.js")),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    serve(kind, text.to_owned())
}

/// `GET /images/{scene}-{day|dusk}.svg`
pub(in crate::demo) async fn image(Path(name): Path<String>) -> Response {
    let Some((scene, light)) = name.strip_suffix(".svg").and_then(|stem| stem.rsplit_once('-')) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let scene = Scene::ALL.into_iter().find(|known| known.name() == scene);
    let palette = match light {
        "day" => DAY,
        "dusk" => DUSK,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let Some(scene) = scene else { return StatusCode::NOT_FOUND.into_response() };
    serve(SVG, paint(scene, palette))
}

fn serve(kind: &'static str, text: String) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=3600")], text).into_response()
}

/// Colours by the names that stand in the drawings: sky above and below, sun, far, middle and near ground, light, ink.
type Palette = [(&'static str, &'static str); 8];

const DAY: Palette = [
    ("SKY1", "#bfe0e6"),
    ("SKY2", "#f4efe0"),
    ("SUN", "#fff7d6"),
    ("FAR", "#8fb3b5"),
    ("MID", "#4f8489"),
    ("NEAR", "#24525a"),
    ("GLOW", "#e9a13b"),
    ("INK", "#16343a"),
];

const DUSK: Palette = [
    ("SKY1", "#27335c"),
    ("SKY2", "#e58f6b"),
    ("SUN", "#ffd9a0"),
    ("FAR", "#6d5a7c"),
    ("MID", "#40406a"),
    ("NEAR", "#1f2747"),
    ("GLOW", "#ffc861"),
    ("INK", "#121735"),
];

fn paint(scene: Scene, palette: Palette) -> String {
    let drawing = match scene {
        Scene::Harbour => include_str!("../assets/harbour.svg"),
        Scene::Market => include_str!("../assets/market.svg"),
        Scene::Railway => include_str!("../assets/railway.svg"),
    };
    palette.iter().fold(drawing.to_owned(), |drawing, (name, colour)| drawing.replace(&format!("{{{name}}}"), colour))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawing_is_painted_in_all_its_colours() {
        for scene in Scene::ALL {
            for palette in [DAY, DUSK] {
                let drawing = paint(scene, palette);
                assert!(drawing.contains("#") && !drawing.contains('{'), "{}: a colour is missing", scene.name());
            }
        }
    }
}
