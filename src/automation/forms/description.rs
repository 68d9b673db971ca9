//! What `describe.js` says about one frame: plain facts, no judgement. Any field may be missing in a stored description.

use serde::{Deserialize, Serialize};

/// A frame's document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Description {
    /// Address of the document.
    pub url: String,
    /// Its title.
    pub title: String,
    /// Its language, as it says itself.
    pub lang: String,
    /// `<meta name=description>`.
    pub description: String,
    /// `og:type`, for example `article`.
    pub kind: String,
    /// Classes of `<body>`.
    pub body_class: String,
    /// Width and height of the viewport, CSS pixels.
    pub viewport: [f64; 2],
    /// Width and height of the document, CSS pixels.
    pub page: [f64; 2],
    /// Number of elements, those in open shadow roots included.
    pub elements: u32,
    /// Headings that are shown, in order.
    pub headings: Vec<Heading>,
    /// `<form>` elements, then groups of fields that have none.
    pub forms: Vec<FormFacts>,
    /// Fields that are not `type=hidden`, at most 400: the first and the last 200.
    pub fields: Vec<FieldFacts>,
    /// Buttons and what looks like one, at most 400.
    pub buttons: Vec<ButtonFacts>,
    /// Frames inside this one.
    pub iframes: Vec<IframeFacts>,
    /// Signs of a CAPTCHA.
    pub captchas: Vec<CaptchaFacts>,
    /// What lies over the page.
    pub overlays: Vec<OverlayFacts>,
    /// Short texts in places where sites put their messages.
    pub notices: Vec<Notice>,
    /// Fields the browser itself holds for invalid now.
    pub invalid: Vec<InvalidField>,
    /// The text that is shown; of a long one the beginning and the end.
    pub text: String,
    /// Length of the whole text, UTF-16 units.
    pub text_length: u64,
}

/// A heading.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heading {
    /// Its text.
    pub text: String,
    /// 1 to 6; 7 for legends and others.
    pub level: u8,
    /// Its place among all elements of the document.
    pub at: u32,
}

/// A form, or a group of fields without one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FormFacts {
    /// Handle of the element.
    pub h: u32,
    /// Selector of the element; ` >>> ` steps into a shadow root.
    pub css: String,
    /// Its place among all elements of the document.
    pub at: u32,
    /// False for a group of fields outside any `<form>`.
    pub is_form: bool,
    /// Whether it is inside an open shadow root.
    pub shadow: bool,
    /// Where it is sent, resolved; empty where it does not say.
    pub action: String,
    /// `get`, `post` or `dialog`.
    pub method: String,
    /// Attribute.
    pub name: String,
    /// Attribute.
    pub id: String,
    /// Attribute.
    pub class: String,
    /// Attribute.
    pub role: String,
    /// `aria-label`.
    pub aria: String,
    /// Names, ids and classes of the elements around it.
    pub ancestry: String,
    /// Headings inside.
    pub headings: Vec<String>,
    /// The last heading before it.
    pub before: String,
    /// Elements between that heading and it.
    pub distance: Option<i64>,
    /// Text inside, without the controls'.
    pub text: String,
    /// Short texts before its first field, the nearest first, that are no headings, links or labels.
    pub lead: Vec<String>,
    /// Texts of the links inside.
    pub links: Vec<String>,
    /// By what means it is hidden.
    pub hidden: Vec<String>,
    /// Left, top, width, height in the document, CSS pixels.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
    /// Whether one of its hidden inputs holds the time of day: such a form measures how fast it is filled.
    pub stamped: bool,
    /// Whether it takes files.
    pub has_file: bool,
}

/// A text beside or bound to a field, and how it belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Label {
    /// `for`, `wrap`, `labelledby`, `describedby`, `before` or `after`.
    pub via: String,
    /// Its text.
    pub text: String,
}

/// A field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldFacts {
    /// Handle of the element.
    pub h: u32,
    /// Selector of the element.
    pub css: String,
    /// Its place among all elements of the document.
    pub at: u32,
    /// Index into [`Description::forms`].
    pub form: Option<usize>,
    /// `input`, `textarea`, `select`, `editable`, or `listbox`: a list that a script draws.
    pub tag: String,
    /// Type of an input.
    #[serde(rename = "type")]
    pub kind: String,
    /// Attribute.
    pub name: String,
    /// Attribute.
    pub id: String,
    /// Attribute.
    pub class: String,
    /// Attribute.
    pub autocomplete: String,
    /// Attribute.
    pub placeholder: String,
    /// `aria-label`.
    pub aria: String,
    /// Attribute.
    pub title: String,
    /// ARIA role; `combobox` too for a line that offers a list.
    pub role: String,
    /// Short `data-` attributes as words.
    pub data: String,
    /// Texts that belong to it.
    pub labels: Vec<Label>,
    /// Words that stand alone between the field before and this one.
    pub between: Vec<String>,
    /// Attribute.
    pub inputmode: String,
    /// Attribute.
    pub pattern: String,
    /// `maxlength`.
    pub max: Option<u32>,
    /// `minlength`.
    pub min: Option<u32>,
    /// Whether the site insists on it.
    pub required: bool,
    /// Takes no text.
    pub readonly: bool,
    /// Takes nothing.
    pub disabled: bool,
    /// Whether it holds something already; for a box, whether it is ticked.
    pub filled: bool,
    /// Of a box to tick: what it sends; of a drawn list: what it shows.
    pub value: String,
    /// Labels of a list's first entries.
    pub options: Vec<String>,
    /// Number of a list's entries.
    pub option_count: u32,
    /// Left, top, width, height in the document, CSS pixels.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
    /// By what means it is hidden from a person: `not_rendered`, `invisible`, `tiny`, `off_screen`, `clipped`, `transparent`,
    /// `aria_hidden`, `folded` (a part of several fields that is not drawn and says so), `tabindex`, `inert`.
    pub hidden: Vec<String>,
    /// Whether a label bound to it is shown.
    pub label_shown: bool,
}

impl FieldFacts {
    /// Whether it takes one of its entries and nothing else.
    pub fn is_list(&self) -> bool {
        matches!(self.tag.as_str(), "select" | "listbox")
    }
}

/// A button, or what looks like one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ButtonFacts {
    /// Handle of the element.
    pub h: u32,
    /// Selector of the element.
    pub css: String,
    /// Its place among all elements of the document.
    pub at: u32,
    /// Index into [`Description::forms`].
    pub form: Option<usize>,
    /// Tag.
    pub tag: String,
    /// `submit`, `button`, `image`, `reset`; empty for other elements.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its text or value.
    pub text: String,
    /// `aria-label`, title or the text of its picture.
    pub label: String,
    /// Attribute.
    pub name: String,
    /// Attribute.
    pub id: String,
    /// Attribute.
    pub class: String,
    /// Of a link.
    pub href: String,
    /// Left, top, width, height in the document, CSS pixels.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
    /// By what means it is hidden.
    pub hidden: Vec<String>,
    /// Can't be pressed now.
    pub disabled: bool,
}

/// A frame element.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IframeFacts {
    /// Handle of the element.
    pub h: u32,
    /// Selector of the element.
    pub css: String,
    /// Where its document comes from.
    pub src: String,
    /// Attribute.
    pub title: String,
    /// Attribute.
    pub name: String,
    /// Attribute.
    pub id: String,
    /// Attribute.
    pub class: String,
    /// Names, ids and classes of the elements around it.
    pub ancestry: String,
    /// Left, top, width, height in the document, CSS pixels.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
    /// By what means it is hidden.
    pub hidden: Vec<String>,
    /// Whether its document is written in the page itself.
    pub srcdoc: bool,
    /// Attribute.
    pub sandbox: Option<String>,
}

/// A sign of a CAPTCHA.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptchaFacts {
    /// Which one: `recaptcha`, `hcaptcha`, `turnstile`, `other`.
    pub kind: String,
    /// Selector of the element.
    pub css: String,
    /// Its place among all elements of the document.
    pub at: u32,
    /// Index into [`Description::forms`].
    pub form: Option<usize>,
    /// Tag.
    pub tag: String,
    /// Whether it is to be seen.
    pub shown: bool,
}

/// Something that lies over the page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OverlayFacts {
    /// Handle of the element.
    pub h: u32,
    /// Selector of the element.
    pub css: String,
    /// Tag.
    pub tag: String,
    /// Attribute.
    pub id: String,
    /// Attribute.
    pub class: String,
    /// Attribute.
    pub role: String,
    /// Ids and classes of what is inside.
    pub names: String,
    /// `aria-label`.
    pub label: String,
    /// Its text.
    pub text: String,
    /// CSS position.
    pub position: String,
    /// `z-index`; 0 for auto.
    pub z: i64,
    /// Share of the viewport it takes, 0 to 1.
    pub share: f64,
    /// Left, top, width, height in the document, CSS pixels.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
    /// Whether it says of itself that the rest can't be used.
    pub modal: bool,
    /// Forms inside: indices into [`Description::forms`].
    pub forms: Vec<usize>,
    /// Fields inside that are shown.
    pub fields: u32,
    /// Text areas inside that are shown.
    pub textareas: u32,
    /// Whether it is the site's own navigation.
    pub navigation: bool,
    /// Whether its content is in a frame.
    pub iframe: bool,
    /// Buttons and links inside.
    pub buttons: Vec<ButtonFacts>,
}

/// A short text where sites put their messages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// The text.
    pub text: String,
    /// Role, classes and id.
    pub words: String,
    /// Its place among all elements of the document.
    pub at: u32,
}

/// A field the browser itself holds for invalid.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvalidField {
    /// Selector of the element.
    pub css: String,
    /// What the browser would tell the person.
    pub message: String,
}
