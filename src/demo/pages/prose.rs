//! The running text of the articles, and the comments that were there before us.

use crate::demo::articles::Scene;

/// Paragraphs of an article that opens with this drawing.
pub(super) fn paragraphs(scene: Scene) -> [&'static str; 6] {
    match scene {
        Scene::Harbour => [
            "The tide does not keep office hours, and neither does anybody who lives by it. At a quarter to five the quay is already awake: a kettle in the net loft, two gulls arguing over a crate, the radio reading out numbers that mean something to everyone within earshot.",
            "“You learn to look twice,” says the woman at the winch, without looking up once. Her grandfather kept the same boat on the same mooring, and the iron ring he drove into the granite has worn a groove as deep as a thumb.",
            "There were forty boats here after the war. There are seven now, and a school of sailing dinghies that comes out in June like mayflies. The harbour office has been a café, a gallery, and, since last spring, a harbour office again.",
            "What stays is the rhythm. Twice a day the basin empties to a shine of mud and rope, and twice a day it fills without a sound. Visitors photograph the sunset. The people who live here photograph the water marks.",
            "The council’s plan runs to two hundred pages and has the word “resilience” in it ninety-one times. It will raise the wall by eighty centimetres, and nobody has yet said what will become of the steps, on which half the town learned to swim.",
            "At dusk the lamps come on one after the other, green to starboard, red to port. From the headland it looks like somebody writing a short sentence and thinking better of the end.",
        ],
        Scene::Market => [
            "By seven the first lanterns are up and the smell has reached the tram stop: charcoal, coriander, something sweet that turns out to be sweet potatoes. Nobody runs. The good stalls have no sign, only a queue, and the queue is the sign.",
            "Mrs Bui has sold one dish for twenty-six years. She ladles it with her left hand, takes coins with the right, and remembers who wanted no spring onion in 2019. “If I had a menu,” she says, “people would have to choose.”",
            "The market has a tap, a fuse box and a committee. The committee meets on Mondays on upturned crates and has never written anything down. It decided on paper plates in eleven minutes and on music in four years.",
            "Economists like to explain why prices at neighbouring stalls are the same. The stallholders find this funny. “She is my sister-in-law,” says the man with the skewers. “I would not dare.”",
            "Rain empties it in a minute and a half and fills it again in five. Everyone knows the two awnings that hold. Under them, with a stranger’s umbrella dripping into your collar, you get the best conversations in town.",
            "When the last pot is scraped, at about one, somebody sweeps from the far end towards the river. By two there is nothing left but a chalk line for each stall, redrawn every spring, argued over all summer.",
        ],
        Scene::Railway => [
            "The branch line leaves from platform four, which is behind the bicycle shed and appears on no departure board. You have to know, and most mornings about thirty people do.",
            "It stops everywhere. It stops at a halt called Mill, where there has been no mill since 1931, because a teacher gets on there. It stops between stations for a farmer who holds up two fingers, which means two sacks.",
            "The timetable allows nine minutes for a gradient that takes six. The other three were written in by an engineer who liked the view, and every revision since has left them alone, each time for a different reason.",
            "“People ask whether it pays,” says the guard, punching a ticket with a small brass star. “I ask them whether the library pays.” He has a flask, a whistle and a theory about conversation: nobody talks until the second tunnel.",
            "In the third carriage a game of cards has been going since the line was reopened. Hands are handed over with seats. Nobody playing now was there when it began, and the score is kept in pencil above the door.",
            "At the terminus the driver walks from one end to the other, which takes as long as it takes, and the whole thing sets off again the other way round. From the rear window it looks exactly as new.",
        ],
    }
}

/// A comment that came with the article.
#[derive(Debug)]
pub(super) struct EarlierComment {
    pub id: u64,
    pub author: &'static str,
    /// ISO date.
    pub date: &'static str,
    pub body: &'static str,
}

/// Comments that stand below every article that shows any.
pub(super) static EARLIER: [EarlierComment; 3] = [
    EarlierComment {
        id: 381,
        author: "Margit S.",
        date: "2026-05-18",
        body: "My uncle would have argued with every second sentence and then read it aloud to the whole table. Thank you for this.",
    },
    EarlierComment {
        id: 384,
        author: "R. Okafor",
        date: "2026-05-19",
        body: "Lovely piece. One small correction: there were eight of them left in 2024, I have the photograph above my desk.",
    },
    EarlierComment {
        id: 392,
        author: "bench_sitter",
        date: "2026-05-20",
        body: "More of this, please, and less about the bridge.",
    },
];
