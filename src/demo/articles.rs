//! The table of contents of *The Tidewater Review*: which article exists, and how it behaves.

/// How an article takes comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Discussion {
    /// A form below the article; published at once.
    Open,
    /// The same; held for moderation.
    Moderated,
    /// The form is sent by `fetch()`; the page stays.
    Fetch,
    /// The form is in a frame of the same origin.
    Frame,
    /// The form is in an open shadow root.
    Shadow,
    /// Hidden decoys and traps around the real fields.
    Decoys,
    /// A consent dialog lies over the page until it is answered.
    ConsentDialog,
    /// No form: closed.
    Closed,
    /// No form: for members.
    MembersOnly,
    /// A CAPTCHA widget in the form.
    CaptchaShown,
    /// Nothing to see before, but the site finds the CAPTCHA's answer missing.
    CaptchaInvisible,
    /// A wall over the page that can't be closed.
    Wall,
    /// The form is in a frame that forbids being framed.
    RefusingFrame,
    /// The form is in a frame whose server is down.
    DeadFrame,
    /// The form is in a frame of another site.
    ForeignFrame,
    /// The form has lost its button.
    NoButton,
    /// The form asks for a number that only subscribers have.
    SubscriberNumber,
}

/// What the server does with a request for the article.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    /// Answers with the page.
    Serves,
    /// 403.
    Forbids,
    /// 429 with `Retry-After`.
    Throttles,
    /// Sends half the page, then nothing.
    Stalls,
    /// The same three times, then the page.
    StallsAtFirst,
    /// Takes the request and never answers.
    Ignores,
    /// 503 twice, then the page.
    Recovers,
    /// 500 each time.
    Fails,
    /// Closes the connection without a word.
    HangsUp,
}

/// Which of the drawings an article shows first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    Harbour,
    Market,
    Railway,
}

impl Scene {
    pub(super) const ALL: [Scene; 3] = [Self::Harbour, Self::Market, Self::Railway];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Harbour => "harbour",
            Self::Market => "market",
            Self::Railway => "railway",
        }
    }

    pub(super) fn caption(self) -> &'static str {
        match self {
            Self::Harbour => "Skerry Point at slack water. Drawing: Skerry Point Press",
            Self::Market => "Lantern Row on a Saturday",
            Self::Railway => "The 6.12 on the viaduct, on time",
        }
    }

    /// The drawings of an article: the first large, the others inside the text.
    pub(super) fn in_order(self) -> [Scene; 3] {
        match self {
            Self::Harbour => [Self::Harbour, Self::Market, Self::Railway],
            Self::Market => [Self::Market, Self::Railway, Self::Harbour],
            Self::Railway => [Self::Railway, Self::Harbour, Self::Market],
        }
    }
}

/// An article and its ways.
#[derive(Debug)]
pub(super) struct Article {
    pub slug: &'static str,
    pub title: &'static str,
    pub standfirst: &'static str,
    pub author: &'static str,
    /// ISO date of publication.
    pub date: &'static str,
    pub section: &'static str,
    pub scene: Scene,
    pub discussion: Discussion,
    pub manners: Manners,
}

impl Article {
    pub(super) fn find(slug: &str) -> Option<&'static Article> {
        ARTICLES.iter().find(|article| article.slug == slug)
    }

    pub(super) fn path(&self) -> String {
        format!("/articles/{}", self.slug)
    }
}

const fn article(
    slug: &'static str,
    discussion: Discussion,
    scene: Scene,
    section: &'static str,
    byline: (&'static str, &'static str),
    title: &'static str,
    standfirst: &'static str,
) -> Article {
    let (author, date) = byline;
    Article { slug, title, standfirst, author, date, section, scene, discussion, manners: Manners::Serves }
}

const fn rude(slug: &'static str, manners: Manners, title: &'static str, standfirst: &'static str) -> Article {
    Article {
        slug,
        title,
        standfirst,
        author: "Ines Valdez",
        date: "2026-03-02",
        section: "Archive",
        scene: Scene::Railway,
        discussion: Discussion::Open,
        manners,
    }
}

const ODA: &str = "Oda Lindqvist";
const TOM: &str = "Tomas Reyes";
const MAI: &str = "Mai Thanh Ha";

/// Newest first, as the front page shows them.
#[rustfmt::skip]
pub(super) static ARTICLES: [Article; 25] = [
    article("harbour-lights", Discussion::Open, Scene::Harbour, "Coast", (ODA, "2026-05-18"),
        "The last keeper of the harbour lights",
        "Every evening for thirty-one years Elin Moe has walked the breakwater with a ladder and a rag. In autumn the lamps will learn to do without her."),
    article("night-market", Discussion::Moderated, Scene::Market, "Table", (MAI, "2026-05-16"),
        "What a night market knows about patience",
        "Forty stalls, one tap, no reservations. The queue at Lantern Row is the best-run institution in the city."),
    article("slow-trains", Discussion::Fetch, Scene::Railway, "Journeys", (TOM, "2026-05-14"),
        "In praise of slow trains",
        "The 6.12 takes four hours for what a car does in ninety minutes. Its passengers would not have it otherwise."),
    article("salt-roads", Discussion::Frame, Scene::Harbour, "Journeys", (ODA, "2026-05-11"),
        "Walking the old salt roads",
        "Five days, two passes and one blister along the route that once paid for a cathedral."),
    article("tide-clocks", Discussion::Shadow, Scene::Harbour, "Workshop", (TOM, "2026-05-09"),
        "The woman who builds clocks for the tide",
        "A tide clock is wrong by fifty minutes a day, on purpose. Making it wrong by the right amount is a craft."),
    article("paper-boats", Discussion::Decoys, Scene::Harbour, "Workshop", (MAI, "2026-05-06"),
        "A regatta of paper boats",
        "The rules are simple: one sheet, no glue, and whoever is dry on the other bank has won."),
    article("fog-signals", Discussion::ConsentDialog, Scene::Harbour, "Coast", (ODA, "2026-05-03"),
        "Learning to hear the fog again",
        "The horn on Skerry Point fell silent in 1988. A choir of volunteers has brought it back, one note at a time."),
    article("closed-season", Discussion::Closed, Scene::Market, "Table", (MAI, "2026-04-29"),
        "The closed season",
        "For six weeks nobody here eats crab. What the cooks do instead has become the better half of the menu."),
    article("members-letter", Discussion::MembersOnly, Scene::Market, "Letters", (TOM, "2026-04-25"),
        "A letter to those who pay for this",
        "Where your four coins a month went, and what we got wrong with them."),
    article("ask-the-editor", Discussion::CaptchaShown, Scene::Railway, "Letters", (TOM, "2026-04-22"),
        "Ask the editor: why is everything in serif?",
        "Once a month the editor answers whatever you throw. This month: type, tea and the missing crossword."),
    article("reader-poll", Discussion::CaptchaInvisible, Scene::Market, "Letters", (MAI, "2026-04-20"),
        "Your favourite bench, and why",
        "We asked for the best place to sit and do nothing. Six hundred of you had an answer."),
    article("subscribers-only", Discussion::Wall, Scene::Market, "Table", (MAI, "2026-04-17"),
        "Nine soups for a wet spring",
        "All of them begin with an onion. None of them ends where you expect."),
    article("second-opinion", Discussion::RefusingFrame, Scene::Railway, "Letters", (ODA, "2026-04-14"),
        "A second opinion on the new bridge",
        "The engineers love it, the swans do not. We went to ask both."),
    article("dead-letter-office", Discussion::DeadFrame, Scene::Railway, "Letters", (TOM, "2026-04-11"),
        "Inside the dead letter office",
        "Where post goes that nobody can deliver, and the three people who read the envelopes like detectives."),
    article("two-shores", Discussion::ForeignFrame, Scene::Harbour, "Coast", (ODA, "2026-04-08"),
        "One ferry, two shores, three captains",
        "The shortest crossing in the country has the longest waiting list for its crew."),
    article("broken-press", Discussion::NoButton, Scene::Railway, "Workshop", (TOM, "2026-04-05"),
        "Mending a press from 1904",
        "Two tons of iron, one missing cog, and a search that ended in a garden shed."),
    article("wine-notes", Discussion::SubscriberNumber, Scene::Market, "Table", (MAI, "2026-04-02"),
        "Notes from the bottom shelf",
        "The cheapest bottle in the shop, tasted with a straight face by people who know better."),
    rude("archive-1911", Manners::Forbids, "From the archive: the flood of 1911", "Glass plates found in a cellar show the town under two metres of water."),
    rude("opening-day", Manners::Throttles, "Opening day at the lido", "Nine hundred tickets, eleven minutes."),
    rude("long-exposure", Manners::Stalls, "Long exposure", "A photographer opens the shutter in January and closes it in June."),
    rude("late-ferry", Manners::StallsAtFirst, "The ferry that came after all", "Three departures cancelled, and a crew that did not go home."),
    rude("quiet-coach", Manners::Ignores, "Silence in coach C", "An hour among people who have agreed not to speak."),
    rude("spring-tide", Manners::Recovers, "Spring tide, twice a day", "How a village plans its weddings by the moon."),
    rude("misprint", Manners::Fails, "The misprint that made a fortune", "One stamp, upside down, and the clerk who kept it."),
    rude("cut-cable", Manners::HangsUp, "The day the cable was cut", "For nineteen hours the island had no news, and nobody minded."),
];
