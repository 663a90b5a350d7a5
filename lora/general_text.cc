#include "lora/general_text.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace coterie {
namespace {

// Passages with an empty line between them; the other line ends are only where a line was full.
constexpr absl::string_view kPassages = R"text(
A river rarely runs straight. Where the bank is soft the water cuts into it, and the sand that it
carries away settles a little further down, on the inside of the next bend. Over a few hundred
years the bends grow wider, until at last a flood breaks through the narrow neck between two of
them and leaves the old loop behind as a quiet lake.

Bread needs only flour, water, salt and time. The flour holds proteins that form long threads when
they are wetted and stretched, and these threads catch the gas that yeast gives off as it eats the
sugar in the dough. A warm kitchen makes the dough rise in an hour; a cold cellar takes a night,
and the loaf tastes better for it.

The first railway in the valley was built to carry slate. Horses pulled the empty wagons up in the
morning, and in the afternoon the loaded ones rolled down to the harbour by their own weight, with
a man on each to work the brake. When steam engines came, the line was relaid, and within ten
years it carried more people than stone.

To add two fractions, bring them to a common denominator first. One third and one quarter are four
twelfths and three twelfths, so together they make seven twelfths. The same idea works for any
number of fractions: find a number that all denominators divide, write each fraction with it, and
add the numerators.

The committee met on Tuesday to discuss the plan for the new library. Most members liked the large
windows to the north, which give even light without heat, but several were worried about the cost
of the roof. It was agreed to ask for a second estimate before the end of the month and to decide
at the next meeting.

Bees tell each other where flowers are by dancing. The dancer runs a short way in a straight line,
shaking her body, then circles back and runs again. The angle of the run against the vertical is
the angle of the flowers against the sun, and the longer the run lasts, the further the others
have to fly.

A program is easier to change when each part of it does one thing. If the part that reads a file
also decides what to print, then a new kind of file means a new way of printing, and soon nobody
dares to touch either. Two small parts with a clear border between them can be tested, replaced
and understood one at a time.

She had lived in the house for eleven years before she found the second cellar. It was behind a
shelf of jars, a low door painted the same grey as the wall, and it opened without a sound. Inside
there was nothing but a chair, a lamp and a pile of letters tied with string, the last of them
dated the spring before she was born.

Salt water freezes at a lower temperature than fresh water, because the dissolved salt gets in the
way of the crystals. In winter this is why salt is spread on roads: it keeps a thin layer of water
liquid some degrees below zero. In very hard frost it no longer helps, and sand is used instead to
give tyres something to hold.

The market opens at six, when the fishermen come in. By eight the best of the catch is gone, and
the stalls with vegetables, cheese and flowers have the square to themselves. Prices fall toward
noon, for nobody wants to carry a crate of lettuce home again, and those who know the sellers wait
until then and bring a large bag.

Many plants tell the season by the length of the night. A leaf holds a substance that changes its
form in daylight and slowly changes back in the dark; how much of it is left at dawn tells the
plant how long the night was. Growers use this when they light a greenhouse for a few minutes at
midnight, so that the plants believe in two short nights.

In the second half the visitors played with more patience. They let the ball run along the back
line until a gap opened, then moved it forward with two or three quick passes. The home side had
chances too, but their shots went wide, and when the only goal fell in the last minute hardly
anybody in the ground was surprised.

A contract should say what happens when something goes wrong. It is not enough to agree on a price
and a date; both sides need to know who pays if the goods arrive late, how long a fault may be
reported, and which court decides if they cannot agree. The best contracts are read once, signed,
and never needed again.

The moon always shows us nearly the same side, because it turns once around itself in the time it
takes to go once around the earth. The earth's pull long ago slowed its spin until the two
matched. We still see a little more than half of it over a month, since its path is not quite a
circle and it seems to nod and sway.

To mend a dripping tap, turn off the water first and let the pipe run empty. Unscrew the top, lift
out the spindle and look at the small rubber ring at its end. If it is hard or cracked, take it to
a shop and buy one of the same size. Put everything back in the same order, and open the water
slowly.

The old dictionary gave four meanings for the word, all to do with weaving. Only in the last
century did people begin to use it for groups of friends, perhaps because a circle of talk is made
of many threads. Words wander like that: a thing lends its name to an idea, and by and by the
thing itself is forgotten.

Blood is moved by the heart through arteries that branch again and again, until the finest vessels
are so narrow that red cells pass them one by one. There oxygen goes out into the tissue and
carbon dioxide comes in. The veins collect the blood and bring it back, helped by the muscles
around them and by small valves that let it flow one way only.

If a train leaves at a quarter past nine and the journey takes two hours and fifty minutes, it
arrives at five past twelve. It is easiest to add the hours first and the minutes after: eleven
fifteen, and fifty minutes more. When the minutes pass sixty, carry an hour, just as one carries a
ten in an ordinary sum.

The painter mixed his colours in the evening and left them covered with a wet cloth. In the
morning he had four hours of good light, and he did not want to lose one of them to grinding.
Visitors thought him lazy because he never worked after noon. In truth he spent the afternoons
walking, looking at the sky, and deciding what not to paint.

Sound needs something to travel in. In air it moves about three hundred and forty metres in a
second, in water more than four times as fast, in steel faster still. That is why a person with an
ear on the rail hears the train before the person who stands beside the track, and why there is no
sound at all between the stars.

Dear Mr Hall, thank you for your letter of the third of May. We are sorry that the lamp arrived
with a broken shade. A new one left our warehouse this morning and should reach you by Friday;
please keep the broken one until our driver can collect it. We have taken the cost of delivery off
your bill. With kind regards.

Before maps had lines for height, a mountain was drawn as a little hill with a shadow. Travellers
could see that there was a mountain, but not how steep it was or where the path went up. Contour
lines came from the study of river beds: each joins the points of one depth, and the same idea,
turned over, shows the shape of the land.

A list is sorted when every item is no greater than the next. The simplest way is to look for the
smallest item, put it first, and do the same with the rest; for a thousand items that is half a
million comparisons. Splitting the list in halves, sorting each and merging them needs about ten
thousand, and the gain grows with the list.

The storm had taken the roof of the barn and two of the apple trees, but the house stood. They
spent the day picking up what the wind had carried over the fields: boards, buckets, a gate that
was not theirs. In the evening the neighbours came with soup and a ladder, and by the light of the
car they covered the hay before it rained again.

Marta Lindqvist was born in 1871 in a fishing village on the west coast of Sweden, the fourth of
seven children. She taught herself to draw from the labels of tins, studied for two years in
Copenhagen, and moved to Paris in 1896, where she shared a studio with the sculptor Anna Holm. Her
first exhibition, in the spring of 1902, was ignored by the newspapers but sold out within a week.

The battle lasted from dawn until shortly after three in the afternoon. The northern army held the
ridge with about nine thousand men and twenty-two guns; the attackers had more cavalry, but the
ground below the ridge was wet and the horses sank to their knees. After two failed assaults
General Orsini ordered a retreat to the river, and lost most of his baggage at the ford.

The common heron stands up to a metre tall and weighs between one and two kilograms. It feeds
mainly on fish, frogs and voles, which it waits for without moving at the edge of shallow water.
The nest, a broad platform of sticks, is built high in a tree and used for many years; both
parents sit on the three to five eggs, and the young fly after about seven weeks.

The song was written in one evening and recorded in two takes. It opens with a single guitar in G
minor, joined after eight bars by bass and drums, and the chorus is sung by all four members of
the group. Critics praised the album for its warm sound, although several found the second half
too long. It reached number eleven in the charts and stayed there for five weeks.

Port Evander lies at the mouth of the river Tarn, about forty kilometres south of the capital. The
town had 18,400 inhabitants at the last census. It grew around a shipyard that was founded in
1823, and for most of the nineteenth century it exported timber and imported coal. The yard closed
in 1979; today the largest employers are the hospital, the ferry company and a maker of kitchen
tools.

In the third season the team won fourteen of its twenty-two matches and finished second, three
points behind the champions. Its captain, Luis Ferreira, scored nineteen goals in all competitions
and was voted player of the year. The club lost the final of the cup on penalties after a draw, in
front of a crowd of more than thirty-one thousand, the largest in the history of the ground.

The comet was seen first by a schoolteacher in Chile, who noticed a faint smudge near the
constellation of the Crane and took it for a fault of her lens. Two nights later it had moved by
the width of the moon. Calculations showed that it would pass the sun in October at a distance of
0.4 astronomical units, and that it would not come back for about two thousand years.

The film tells the story of two brothers who inherit a cinema in a town where nobody goes out any
more. Most of it was shot in eleven days with a borrowed camera. The director, who also wrote the
script, said that the long scene in the rain was not planned: the roof of the hall had begun to
leak, and the actors simply went on. It was shown at four festivals and won a prize for its music.

Glass is made by melting sand with soda and lime at about 1,500 degrees. The soda lowers the
temperature at which the sand melts, and the lime keeps the finished glass from dissolving in
water. When the melt cools it does not form crystals but stiffens slowly, so that it can be blown,
pressed or drawn into threads while it is soft. A little iron turns it green; cobalt makes it
blue.

The bill was introduced in February 1911 and passed the lower house by a margin of seven votes.
Its opponents argued that a tax on land would ruin the small farmers of the south, while the
government answered that nine tenths of it would be paid by three hundred families. The upper
house rejected it twice. After the election in December a weaker form became law, and it was in
force until 1938.

Most of the island is covered by a forest of beech and laurel, broken by bare ridges of dark rock.
Rain falls on more than two hundred days of the year, and the streams are short and steep. There
are no native mammals except bats. Of the birds, a flightless rail was thought extinct until a
party of surveyors found eleven of them in a valley on the northern side in 1964.

The ship was laid down in March 1906, launched in the autumn of the following year and
commissioned in May 1909. She was 142 metres long, displaced 13,200 tons, and carried four guns in
two turrets and ten smaller ones along her sides. Her engines drove her at twenty-one knots in
trials, although in service she seldom made more than nineteen. She was sold for scrap in 1923.

The disease begins with a mild fever and a sore throat, and in most people nothing more comes of
it. In about one case in twenty a rash appears on the third or fourth day, first on the chest and
later on the arms. It is carried by drops in the air and by hands. There is no cure, but a vaccine
has been in use since the 1960s, and outbreaks are now rare where nine in ten children have had
it.

The professor's second book appeared seven years after the first and contradicted it on nearly
every page. She had gone back to the parish records, she wrote, and had found that the families
who were said to have left the valley in the famine were still paying rent there ten years later.
What had looked like flight was a change in the way that names were spelled.

The bridge has a single arch of steel with a span of 187 metres and carries two lanes of traffic
and a footpath. Work began in 1928, and the two halves of the arch met in the middle in August
1930 with an error of less than two centimetres. During the war the roadway was blown up by
retreating troops, but the arch itself was left standing and could be used again within a year.

When the company moved to the new factory in 1954 it employed sixty people and made one kind of
radio. Ten years later there were nine hundred workers, and its portable sets were sold in thirty
countries. The founder disliked advertising and believed that a good product finds its own way;
his daughter, who took over in 1971, doubled the budget for it in her first month.

The play is set in the kitchen of a hotel during a single night. In the first act the cook learns
that the owner means to close the house in spring; in the second she tells nobody, although each
of the others has a reason to know. The third act, in which all the clocks have stopped, is often
cut in performance. A review of 1926 called it a comedy for people who cannot sleep.

Lead pipes were common in old towns because the metal is soft and easy to bend. Where the water is
hard, a crust of lime forms inside within a few months and keeps the lead away from it. Where the
water is soft and slightly acid there is no such crust, and small amounts dissolve in every glass.
The remedy is to replace the pipes; until then, letting the tap run for a minute helps.

The road across the pass was a mule track until 1787, when the bishop had it widened so that carts
could use it in summer. An inn was built at the highest point, 2,011 metres above the sea, and its
keeper was obliged to ring a bell in fog and snow. The accounts of the inn show that he rang it on
ninety-four days in the winter of 1812 and was paid in candles.

The second expedition left in June with three boats and provisions for eighteen months. Near the
seventy-eighth parallel the ice closed in from both sides, and the men spent the winter in a hut
built of driftwood and sails. Scurvy broke out in February. The doctor, Henrik Vaas, made them
drink a tea of spruce needles, and of twenty-six men only two died before the thaw.

A violin has about seventy parts. The top is made of spruce, which is light and stiff, and the
back of maple, usually in two pieces that mirror each other. A thin rod of wood, the sound post,
stands between them under the right foot of the bridge; moving it by half a millimetre can change
the tone of the instrument more than a new set of strings.

The language is spoken by about forty thousand people in the upper part of the valley. It has no
written form older than the sixteenth century, when a monk set down a list of plants with their
names. Verbs change with the shape of the object: there is one word for giving a round thing,
another for giving a long one, and a third for giving anything that flows.

Wheat prices rose by a third between May and September, and in October the first bakeries closed.
The council bought four ships of rye from abroad and sold it at a loss, a measure that cost the
city more than all its schools. By the next harvest the price had fallen again. Historians still
argue whether the purchase prevented a famine or merely paid the merchants for waiting.

Her early stories are short, often no longer than two pages, and nearly always told by a child. In
the later ones the children have grown up and no longer trust what they remember. The best known
of them, about a lighthouse keeper who writes letters to ships, has been translated into twenty
languages, and a street in her home town now bears the name of its hero.

The storm formed off the coast of Africa on the ninth of August and became a hurricane five days
later. It crossed the northern islands with winds of 195 kilometres an hour, turned to the east
and weakened over cold water. Damage was estimated at forty million dollars; seven people lost
their lives, five of them in a single boat that had left the harbour against advice.

Chess clocks were first used at a tournament in 1883. Before that a player could think for as long
as he liked, and there are reports of games in which one side simply waited until the other fell
asleep. The earliest clocks were two pendulums on a beam: pressing one side stopped it and set the
other going. Sand glasses had been tried before, but they could not be stopped.

The species was described in 1848 from a single dried flower that a sailor had pressed in his
prayer book. For more than a century nobody saw it alive. It grows only on steep chalk slopes that
face north, flowers for four days in early May, and sets seed once in several years. About three
hundred plants are known, nearly all of them within the bounds of one quarry.

In his will the old man left the house to his niece, the orchard to the village and his debts to
the bank. The lawyer read the last sentence twice. Nobody had known that he owned a boat, and
nobody could say where it lay. The following summer it was found in a shed eight miles away,
freshly painted, with a set of charts for a sea that none of them had ever seen.
)text";

// As they stand, line ends included.
constexpr absl::string_view kProbe[] = {
    R"text(Otter. Otters are mammals of the family that also holds weasels, badgers and martens. There are
thirteen living species, all of which swim well and eat fish, crabs or shellfish. Description: a
long body, short legs, webbed feet and a thick tail. Range: every continent except Australia and
Antarctica. Status: most species are declining because rivers are drained, dammed or polluted.)text",

    R"text(RIVERTON, Tuesday - The mayor said yesterday that the swimming hall will stay closed until at
least March. Engineers found cracks in two of the beams that carry the roof. "Safety comes first,"
she told reporters. The repair is expected to cost 2.4 million, of which the county will pay half.
A spokesman for the swimming club called the news "a bitter blow for three hundred children".)text",

    R"text(- Good morning, how can I help you?
- I bought this kettle last week and it won't switch off by itself.
- Do you still have the receipt?
- Somewhere. Would the bank statement do?
- It would. Would you like a new one, or your money back?
- A new one, please, if it is the same colour.)text",

    R"text(How to repot a plant
1. Water it an hour before you begin, so that the roots come away from the pot.
2. Choose a pot about two centimetres wider than the old one, with a hole in the bottom.
3. Lay a stone over the hole and cover it with fresh soil.
4. Lift the plant out, loosen the outer roots with your fingers, and set it in at the same height.
5. Fill the gap, press the soil down gently, and water again.)text",

    R"text(def average(values):
    """The mean of a list of numbers; 0 for an empty list."""
    if not values:
        return 0.0
    total = 0.0
    for value in values:
        total += value
    return total / len(values)

print(average([3, 5, 10]))  # 6.0)text",

    R"text(Q: Why is the sky blue?
A: Sunlight holds all colours. The air scatters blue light much more than red, so blue reaches our
eyes from every part of the sky.
Q: Then why is it red in the evening?
A: Because the light has come a long way through the air, and most of the blue has been lost on the
way.)text",

    R"text(Subject: Meeting on Thursday

Hi all,
just a reminder that we meet on Thursday at 10 in room 204, not in the usual one. Please bring your
numbers for the third quarter. Tom cannot come and will send his by mail. If you want to add a
point to the agenda, let me know by Wednesday evening.
Best, Carla)text",

    R"text(Ingredients: 250 g flour, 125 g cold butter, 1 egg, a pinch of salt, 800 g apples, 80 g sugar, the
juice of half a lemon. Rub the butter into the flour, add egg and salt, and leave the dough in the
fridge for half an hour. Peel and slice the apples. Roll out the dough, lay the apples on it, and
bake at 190 degrees for 40 minutes.)text",

    R"text(The plaintiff bought a horse from the defendant in April. The defendant had said that the animal was
sound. In May it was found to be lame in the left foreleg, and a veterinary surgeon gave evidence
that the lameness was of long standing. The court held that the statement was a term of the contract
and not mere praise, and ordered the price to be repaid.)text",

    R"text(Today: dry and mostly sunny in the east, clouds from the west by noon, with showers along the coast
in the afternoon. Highs of 17 to 21 degrees. Wind: southwest, moderate, fresh at times on the hills.
Tonight: clearing, lows near 8. Outlook for Saturday: rain in all parts, heavy in the north, turning
to drizzle on Sunday.)text",

    R"text(Theorem. There are infinitely many primes. Proof. Suppose that there were only finitely many, p1, p2,
up to pn. Let N be their product plus one. N is greater than one, so that some prime divides it. But
dividing N by any of the p leaves the remainder one. So the prime that divides N is none of them,
which is a contradiction.)text",

    R"text(What is the capital of France? The capital of France is Paris. What is the largest planet? The
largest planet of the solar system is Jupiter. Who wrote Hamlet? Hamlet was written by William
Shakespeare. How many days are in a leap year? A leap year has 366 days. What do bees make? Bees make
honey and wax.)text",

    R"text(Two stars out of five. The room was clean and the staff were friendly, but the walls are so thin that
I could follow the film next door. Breakfast is served from seven to nine only. The picture on the
website must have been taken years ago: the balcony looks straight at a car park. Would I come back?
Only if everything else in town were full.)text",

    R"text(Abstract. We study how ants find the shorter of two paths to food. In twelve colonies, the share of
ants that took the shorter path rose from 0.52 in the first five minutes to 0.91 after thirty. When
the paths were washed between trials, the share stayed at 0.5. We conclude that the ants follow a
trace which they leave on the ground, and not the light.)text",

    R"text(Ladies and gentlemen, when I was asked to say a few words tonight I thought of my grandmother, who
never made a speech in her life. She used to say that a thing worth saying fits into one breath. I
have taken three already, so let me only thank you: for your patience, for your work, and for the
cake.)text",

    R"text(Installation. Check that the box contains the lamp, the bracket, two screws and two plugs. Switch off
the current at the fuse before you begin. Hold the bracket against the ceiling, mark the holes and
drill them with a 6 mm bit. Push in the plugs, fasten the bracket, and connect blue to N and brown to
L. Warning: do not use bulbs above 40 W.)text",
};

}  // namespace

std::string GeneralText() {
  std::string text;
  for (const absl::string_view passage : absl::StrSplit(kPassages, "\n\n")) {
    absl::StrAppend(&text, absl::StrReplaceAll(absl::StripAsciiWhitespace(passage), {{"\n", " "}}),
                    "\n");
  }
  return text;
}

absl::Span<const absl::string_view> ProbePassages() { return kProbe; }

}  // namespace coterie
