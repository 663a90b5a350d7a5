#include "lora/general_text.h"

namespace coterie {
namespace {

constexpr absl::string_view kPassages[] = {
    "A river rarely runs straight. Where the bank is soft the water cuts into it, and the sand "
    "that "
    "it carries away settles a little further down, on the inside of the next bend. Over a few "
    "hundred years the bends grow wider, until at last a flood breaks through the narrow neck "
    "between two of them and leaves the old loop behind as a quiet lake.",
    "Bread needs only flour, water, salt and time. The flour holds proteins that form long threads "
    "when they are wetted and stretched, and these threads catch the gas that yeast gives off as "
    "it "
    "eats the sugar in the dough. A warm kitchen makes the dough rise in an hour; a cold cellar "
    "takes "
    "a night, and the loaf tastes better for it.",
    "The first railway in the valley was built to carry slate. Horses pulled the empty wagons up "
    "in "
    "the morning, and in the afternoon the loaded ones rolled down to the harbour by their own "
    "weight, with a man on each to work the brake. When steam engines came, the line was relaid, "
    "and "
    "within ten years it carried more people than stone.",
    "To add two fractions, bring them to a common denominator first. One third and one quarter are "
    "four twelfths and three twelfths, so together they make seven twelfths. The same idea works "
    "for "
    "any number of fractions: find a number that all denominators divide, write each fraction with "
    "it, and add the numerators.",
    "The committee met on Tuesday to discuss the plan for the new library. Most members liked the "
    "large windows to the north, which give even light without heat, but several were worried "
    "about "
    "the cost of the roof. It was agreed to ask for a second estimate before the end of the month "
    "and "
    "to decide at the next meeting.",
    "Bees tell each other where flowers are by dancing. The dancer runs a short way in a straight "
    "line, shaking her body, then circles back and runs again. The angle of the run against the "
    "vertical is the angle of the flowers against the sun, and the longer the run lasts, the "
    "further "
    "the others have to fly.",
    "A program is easier to change when each part of it does one thing. If the part that reads a "
    "file "
    "also decides what to print, then a new kind of file means a new way of printing, and soon "
    "nobody "
    "dares to touch either. Two small parts with a clear border between them can be tested, "
    "replaced "
    "and understood one at a time.",
    "She had lived in the house for eleven years before she found the second cellar. It was behind "
    "a "
    "shelf of jars, a low door painted the same grey as the wall, and it opened without a sound. "
    "Inside there was nothing but a chair, a lamp and a pile of letters tied with string, the last "
    "of "
    "them dated the spring before she was born.",
    "Salt water freezes at a lower temperature than fresh water, because the dissolved salt gets "
    "in "
    "the way of the crystals. In winter this is why salt is spread on roads: it keeps a thin layer "
    "of water liquid some degrees below zero. In very hard frost it no longer helps, and sand is "
    "used "
    "instead to give tyres something to hold.",
    "The market opens at six, when the fishermen come in. By eight the best of the catch is gone, "
    "and "
    "the stalls with vegetables, cheese and flowers have the square to themselves. Prices fall "
    "toward "
    "noon, for nobody wants to carry a crate of lettuce home again, and those who know the sellers "
    "wait until then and bring a large bag.",
    "Many plants tell the season by the length of the night. A leaf holds a substance that changes "
    "its form in daylight and slowly changes back in the dark; how much of it is left at dawn "
    "tells "
    "the plant how long the night was. Growers use this when they light a greenhouse for a few "
    "minutes at midnight, so that the plants believe in two short nights.",
    "In the second half the visitors played with more patience. They let the ball run along the "
    "back "
    "line until a gap opened, then moved it forward with two or three quick passes. The home side "
    "had "
    "chances too, but their shots went wide, and when the only goal fell in the last minute hardly "
    "anybody in the ground was surprised.",
    "A contract should say what happens when something goes wrong. It is not enough to agree on a "
    "price and a date; both sides need to know who pays if the goods arrive late, how long a fault "
    "may be reported, and which court decides if they cannot agree. The best contracts are read "
    "once, "
    "signed, and never needed again.",
    "The moon always shows us nearly the same side, because it turns once around itself in the "
    "time "
    "it takes to go once around the earth. The earth's pull long ago slowed its spin until the two "
    "matched. We still see a little more than half of it over a month, since its path is not quite "
    "a "
    "circle and it seems to nod and sway.",
    "To mend a dripping tap, turn off the water first and let the pipe run empty. Unscrew the top, "
    "lift out the spindle and look at the small rubber ring at its end. If it is hard or cracked, "
    "take it to a shop and buy one of the same size. Put everything back in the same order, and "
    "open "
    "the water slowly.",
    "The old dictionary gave four meanings for the word, all to do with weaving. Only in the last "
    "century did people begin to use it for groups of friends, perhaps because a circle of talk is "
    "made of many threads. Words wander like that: a thing lends its name to an idea, and by and "
    "by "
    "the thing itself is forgotten.",
    "Blood is moved by the heart through arteries that branch again and again, until the finest "
    "vessels are so narrow that red cells pass them one by one. There oxygen goes out into the "
    "tissue and carbon dioxide comes in. The veins collect the blood and bring it back, helped by "
    "the "
    "muscles around them and by small valves that let it flow one way only.",
    "If a train leaves at a quarter past nine and the journey takes two hours and fifty minutes, "
    "it "
    "arrives at five past twelve. It is easiest to add the hours first and the minutes after: "
    "eleven "
    "fifteen, and fifty minutes more. When the minutes pass sixty, carry an hour, just as one "
    "carries "
    "a ten in an ordinary sum.",
    "The painter mixed his colours in the evening and left them covered with a wet cloth. In the "
    "morning he had four hours of good light, and he did not want to lose one of them to grinding. "
    "Visitors thought him lazy because he never worked after noon. In truth he spent the "
    "afternoons "
    "walking, looking at the sky, and deciding what not to paint.",
    "Sound needs something to travel in. In air it moves about three hundred and forty metres in a "
    "second, in water more than four times as fast, in steel faster still. That is why a person "
    "with "
    "an ear on the rail hears the train before the person who stands beside the track, and why "
    "there "
    "is no sound at all between the stars.",
    "Dear Mr Hall, thank you for your letter of the third of May. We are sorry that the lamp "
    "arrived "
    "with a broken shade. A new one left our warehouse this morning and should reach you by "
    "Friday; "
    "please keep the broken one until our driver can collect it. We have taken the cost of "
    "delivery "
    "off your bill. With kind regards.",
    "Before maps had lines for height, a mountain was drawn as a little hill with a shadow. "
    "Travellers "
    "could see that there was a mountain, but not how steep it was or where the path went up. "
    "Contour "
    "lines came from the study of river beds: each joins the points of one depth, and the same "
    "idea, "
    "turned over, shows the shape of the land.",
    "A list is sorted when every item is no greater than the next. The simplest way is to look for "
    "the "
    "smallest item, put it first, and do the same with the rest; for a thousand items that is half "
    "a "
    "million comparisons. Splitting the list in halves, sorting each and merging them needs about "
    "ten "
    "thousand, and the gain grows with the list.",
    "The storm had taken the roof of the barn and two of the apple trees, but the house stood. "
    "They "
    "spent the day picking up what the wind had carried over the fields: boards, buckets, a gate "
    "that "
    "was not theirs. In the evening the neighbours came with soup and a ladder, and by the light "
    "of "
    "the car they covered the hay before it rained again.",
};

}  // namespace

absl::Span<const absl::string_view> GeneralPassages() { return kPassages; }

}  // namespace coterie
