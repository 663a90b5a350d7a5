"""Tasks of our own: what make_tasks.py cannot take from a public set."""

from __future__ import annotations

import random
from collections.abc import Callable

WordProblem = Callable[[random.Random], tuple[str, float]]

NAMES = ["Mara", "Tom", "Aisha", "Lukas", "Priya", "Ben", "Sofia", "Jonas", "Nina", "Omar"]
THINGS = ["apples", "stickers", "marbles", "books", "postcards", "coins", "pencils", "shells"]


def _shopping(r: random.Random) -> tuple[str, float]:
    n, price, m, other = r.randint(2, 9), r.randint(2, 9), r.randint(2, 6), r.randint(3, 12)
    return (
        f"{r.choice(NAMES)} buys {n} notebooks at {price} dollars each and {m} pens at {other} "
        "dollars each. How many dollars does that cost in total?",
        n * price + m * other,
    )


def _give_away(r: random.Random) -> tuple[str, float]:
    who, other, thing = r.choice(NAMES), "a friend", r.choice(THINGS)
    have, give, find = r.randint(30, 90), r.randint(5, 25), r.randint(3, 19)
    return (
        f"{who} has {have} {thing}, gives {give} of them to {other} and then finds {find} more. "
        f"How many {thing} does {who} have now?",
        have - give + find,
    )


def _train(r: random.Random) -> tuple[str, float]:
    speed, hours = r.choice([40, 60, 80, 90, 120]), r.choice([2, 3, 4, 5])
    return (
        f"A train travels at {speed} km per hour for {hours} hours. How many kilometres does it "
        "travel?",
        speed * hours,
    )


def _discount(r: random.Random) -> tuple[str, float]:
    price, percent = r.choice([40, 60, 80, 120, 200]), r.choice([10, 20, 25, 50])
    return (
        f"A coat costs {price} dollars. In the sale it is {percent} percent cheaper. What does it "
        "cost in the sale, in dollars?",
        price * (100 - percent) / 100,
    )


def _share(r: random.Random) -> tuple[str, float]:
    people, each, left = r.randint(3, 9), r.randint(4, 12), r.randint(1, 2)
    return (
        f"{people * each + left} sweets are shared equally among {people} children, as many as "
        "possible for each. How many sweets does each child get?",
        each,
    )


def _rectangle(r: random.Random) -> tuple[str, float]:
    a, b = r.randint(3, 15), r.randint(3, 15)
    return (
        f"A garden is a rectangle, {a} metres long and {b} metres wide. How many metres of fence "
        "are needed to go around it?",
        2 * (a + b),
    )


def _age(r: random.Random) -> tuple[str, float]:
    young, factor, years = r.randint(4, 12), r.randint(2, 4), r.randint(2, 10)
    who, other = r.sample(NAMES, 2)
    return (
        f"{who} is {young} years old. {other} is {factor} times as old as {who}. How old will "
        f"{other} be in {years} years?",
        young * factor + years,
    )


def _week(r: random.Random) -> tuple[str, float]:
    per_day, price = r.randint(2, 6), r.choice([2, 3, 4])
    return (
        f"A hen farm sells {per_day * 10} eggs a day at {price} dollars for every ten eggs. How "
        "many dollars does it earn in a week of 7 days?",
        per_day * price * 7,
    )


def _fraction(r: random.Random) -> tuple[str, float]:
    quarter, wear = r.randint(5, 15), r.randint(2, 5)
    total = 4 * quarter
    return (
        f"In a class of {total} pupils a quarter wear glasses. {wear} pupils who wear glasses are "
        "absent today. How many pupils with glasses are there today?",
        quarter - wear,
    )


def _reading(r: random.Random) -> tuple[str, float]:
    pages_a_day, days, left = r.randint(12, 30), r.randint(4, 9), r.randint(20, 60)
    total = pages_a_day * days + left
    return (
        f"A book has {total} pages. {r.choice(NAMES)} reads {pages_a_day} pages every day for "
        f"{days} days. How many pages are left?",
        left,
    )


def _legs(r: random.Random) -> tuple[str, float]:
    chickens, cows = r.randint(3, 14), r.randint(2, 9)
    return (
        f"On a farm there are {chickens} chickens and {cows} cows. How many legs do they have "
        "together?",
        2 * chickens + 4 * cows,
    )


def _wage(r: random.Random) -> tuple[str, float]:
    wage, hours, extra = r.choice([12, 15, 18, 20]), r.randint(5, 8), r.randint(1, 4)
    return (
        f"{r.choice(NAMES)} earns {wage} dollars an hour and twice as much for overtime. How many "
        f"dollars are earned for {hours} normal hours and {extra} hours of overtime?",
        wage * hours + 2 * wage * extra,
    )


def _tank(r: random.Random) -> tuple[str, float]:
    rate, leak, minutes = r.randint(8, 15), r.randint(1, 5), r.randint(6, 20)
    return (
        f"A tap fills an empty tank with {rate} litres a minute while {leak} litres a minute leak "
        f"out. How many litres are in the tank after {minutes} minutes?",
        (rate - leak) * minutes,
    )


def _average(r: random.Random) -> tuple[str, float]:
    mean, spread = r.randint(10, 30), r.randint(1, 8)
    return (
        f"Three parcels weigh {mean - spread} kg, {mean} kg and {mean + spread} kg. What is their "
        "average weight in kg?",
        mean,
    )


def _boxes(r: random.Random) -> tuple[str, float]:
    per_box, boxes, loose = r.choice([6, 8, 12, 24]), r.randint(3, 9), r.randint(1, 5)
    return (
        f"A shop has {boxes} boxes with {per_box} bulbs each and {loose} loose bulbs. It sells "
        f"{per_box} bulbs. How many bulbs does it have left?",
        per_box * (boxes - 1) + loose,
    )


def _time(r: random.Random) -> tuple[str, float]:
    first, second = r.randint(15, 55), r.randint(20, 50)
    return (
        f"A cake bakes for {first} minutes and then cools for {second} minutes. Two cakes are made "
        "one after the other. How many minutes does that take in total?",
        2 * (first + second),
    )


WORD_PROBLEMS: list[WordProblem] = [
    _shopping,
    _give_away,
    _train,
    _discount,
    _share,
    _rectangle,
    _age,
    _week,
    _fraction,
    _reading,
    _legs,
    _wage,
    _tank,
    _average,
    _boxes,
    _time,
]

# Texts with the fields to copy out of them.
RECORDS: list[tuple[str, dict[str, str]]] = [
    (
        "Hi team, this is Carla Jensen from Accounting. The invoice of 1,250 euros from Nordwind "
        "is due on 14 March.",
        {"name": "Carla Jensen", "company": "Nordwind", "due": "14 March"},
    ),
    (
        "Your order 88213 has left our warehouse in Leeds and will arrive on Tuesday by ParcelFox.",
        {"order": "88213", "city": "Leeds", "carrier": "ParcelFox"},
    ),
    (
        "Dr. Amir Haddad can see you on 3 June at 10:30 in room 214.",
        {"doctor": "Amir Haddad", "date": "3 June", "room": "214"},
    ),
    (
        "Flight LX 318 to Zurich leaves at 17:05 from gate B42.",
        {"flight": "LX 318", "destination": "Zurich", "gate": "B42"},
    ),
    (
        "For sale: a used Kestrel racing bike, size 56, 480 dollars, ask for Martin.",
        {"brand": "Kestrel", "price": "480 dollars", "contact": "Martin"},
    ),
    (
        "Reminder: the parents' evening of class 4b takes place in the gym on Thursday at 19:00.",
        {"class": "4b", "place": "gym", "time": "19:00"},
    ),
    (
        "Ticket #5521: Olga Petrova reports that the printer on floor 3 shows error E-17.",
        {"ticket": "5521", "person": "Olga Petrova", "error": "E-17"},
    ),
    (
        "We are pleased to offer Daniel Okoye the position of data analyst in Dublin from 1 "
        "September.",
        {"person": "Daniel Okoye", "position": "data analyst", "start": "1 September"},
    ),
    (
        "Table for six booked at Trattoria Lupo, Saturday 20:15, under the name Fischer.",
        {"restaurant": "Trattoria Lupo", "time": "20:15", "name": "Fischer"},
    ),
    (
        "The museum in Bergen paid 2.3 million crowns for the painting 'Winter Light' by Ida Lund.",
        {"city": "Bergen", "title": "Winter Light", "artist": "Ida Lund"},
    ),
    (
        "Please call Mr. Tanaka of Hoshi Electronics back at 555-0147 about the contract.",
        {"person": "Mr. Tanaka", "company": "Hoshi Electronics", "phone": "555-0147"},
    ),
    (
        "The temperature sensor in greenhouse 7 reported 41.5 degrees at 13:40.",
        {"greenhouse": "7", "temperature": "41.5", "time": "13:40"},
    ),
    (
        "Maria Lopez scored twice as Riverton beat Oakfield 3-1 on Sunday.",
        {"scorer": "Maria Lopez", "winner": "Riverton", "score": "3-1"},
    ),
    (
        "Room 508 asks for two extra towels and a taxi to the station at 6:45.",
        {"room": "508", "item": "towels", "taxi": "6:45"},
    ),
    (
        "Contract no. C-2207 between Alder Ltd and Pinewood Inc ends on 31 December 2027.",
        {"contract": "C-2207", "end": "31 December 2027"},
    ),
    (
        "Samira's flat has 62 square metres and costs 910 euros a month without heating.",
        {"owner": "Samira", "area": "62", "rent": "910"},
    ),
    (
        "The webinar 'Safer Passwords' by Priya Nair starts on 9 May at noon.",
        {"title": "Safer Passwords", "speaker": "Priya Nair", "date": "9 May"},
    ),
    (
        "Library notice: 'The Salt Road' is overdue since 2 April; the fee is 1.50 dollars.",
        {"title": "The Salt Road", "since": "2 April", "fee": "1.50 dollars"},
    ),
    (
        "Train IC 704 from Basel is 25 minutes late because of a signal failure near Olten.",
        {"train": "IC 704", "delay": "25 minutes", "place": "Olten"},
    ),
    (
        "Recipe card: lentil soup, serves 4, ready in 35 minutes, by Chef Duval.",
        {"dish": "lentil soup", "serves": "4", "minutes": "35"},
    ),
    (
        "The package for Elena Rossi, 12 Harbour Street, was left with the neighbour.",
        {"name": "Elena Rossi", "address": "12 Harbour Street"},
    ),
    (
        "Account 7730-22: a withdrawal of 300 pounds was made in Cardiff on 8 July.",
        {"account": "7730-22", "amount": "300 pounds", "city": "Cardiff"},
    ),
]

SENTIMENT = ("positive", "negative")
TOPIC = ("sports", "politics", "technology", "cooking")
URGENCY = ("urgent", "not urgent")
CLASSIFICATIONS: list[tuple[str, tuple[str, ...], str]] = [
    ("The hotel was spotless and the staff could not have been kinder.", SENTIMENT, "positive"),
    ("My parcel came broken and nobody answers the phone.", SENTIMENT, "negative"),
    ("I have read it twice already and will read it again.", SENTIMENT, "positive"),
    ("The soup was cold and the waiter rude.", SENTIMENT, "negative"),
    ("Two hours of my life that I will not get back.", SENTIMENT, "negative"),
    ("Works straight out of the box, and the battery lasts for days.", SENTIMENT, "positive"),
    ("I would not recommend this garage to anyone.", SENTIMENT, "negative"),
    ("Best concert I have been to in years!", SENTIMENT, "positive"),
    ("The goalkeeper saved two penalties in the final.", TOPIC, "sports"),
    ("Parliament votes on the new budget next week.", TOPIC, "politics"),
    ("The new chip needs half the power of the old one.", TOPIC, "technology"),
    ("Let the dough rest for an hour before you bake it.", TOPIC, "cooking"),
    ("The mayor will not stand for election again.", TOPIC, "politics"),
    ("She won the marathon in just over two hours.", TOPIC, "sports"),
    ("An update fixes the bug that crashed the app.", TOPIC, "technology"),
    ("Fry the onions in butter until they are golden.", TOPIC, "cooking"),
    ("The server is down and customers cannot pay!", URGENCY, "urgent"),
    ("When you find the time, could you update the team photo?", URGENCY, "not urgent"),
    ("Water is running into the server room right now.", URGENCY, "urgent"),
    ("No hurry, but the plant in the hall could use some water this month.", URGENCY, "not urgent"),
    ("The fire alarm of building B does not stop, please send someone at once.", URGENCY, "urgent"),
    ("Just for your information: the canteen menu changes in May.", URGENCY, "not urgent"),
]

PASSAGES: list[tuple[str, str, list[str]]] = [
    (
        "The old lighthouse was built in 1871 by Henrik Dahl. Since 1994 it has been a museum.",
        "Who built the lighthouse?",
        ["Henrik Dahl"],
    ),
    (
        "Otters sleep on their backs and hold hands so that they do not drift apart.",
        "Why do otters hold hands?",
        ["drift apart", "drifting apart", "not drift"],
    ),
    (
        "The ferry to Brack runs from April to October; in winter there is a bus instead.",
        "How does one get to Brack in winter?",
        ["bus"],
    ),
    (
        "Lena moved from Graz to Lisbon in 2015 to study marine biology.",
        "Where did Lena live before Lisbon?",
        ["Graz"],
    ),
    (
        "The bakery opens at six, but on Sundays not before eight.",
        "When does the bakery open on Sundays?",
        ["eight", "8"],
    ),
    (
        "Bamboo grows up to 90 cm a day, faster than any other plant.",
        "How much can bamboo grow in a day?",
        ["90 cm", "90cm", "90 centimet"],
    ),
    (
        "After the flood the village was rebuilt on the hill, 40 metres above the river.",
        "Where was the village rebuilt?",
        ["hill"],
    ),
    (
        "The company was founded by two sisters, Ada and Ruth Klein, in a garage in Bern.",
        "In which city was the company founded?",
        ["Bern"],
    ),
    (
        "Members pay 20 euros a year, students half of that.",
        "What do students pay?",
        ["10", "ten", "half"],
    ),
    (
        "The red kite was almost extinct in Wales; today there are over 2,000 pairs.",
        "Which bird was almost extinct?",
        ["red kite"],
    ),
    (
        "Because the bridge was closed, the caravan took the road through the Narrow Pass.",
        "Why did the caravan take the pass?",
        ["bridge was closed", "bridge is closed", "closed bridge", "bridge closed"],
    ),
    (
        "The prize went to Yusuf Demir; the second place was shared by Eva Holm and Pia Berg.",
        "Who won the prize?",
        ["Yusuf Demir"],
    ),
    (
        "The recipe asks for buttermilk, but yoghurt thinned with water does as well.",
        "What can replace buttermilk?",
        ["yoghurt", "yogurt"],
    ),
    (
        "Unlike most birds, the kiwi finds its food by smell.",
        "By which sense does the kiwi find food?",
        ["smell"],
    ),
    (
        "The meeting was moved from Monday to Wednesday since the hall was being painted.",
        "On which day is the meeting now?",
        ["Wednesday"],
    ),
    (
        "Copper turns green in the air because a layer of patina forms on it.",
        "What forms on copper in the air?",
        ["patina"],
    ),
    (
        "The expedition had food for 30 days but came back after only 19.",
        "After how many days did the expedition come back?",
        ["19", "nineteen"],
    ),
    (
        "Aunt Rosa keeps the key under the third flowerpot from the left.",
        "Where is the key?",
        ["flowerpot", "flower pot"],
    ),
    (
        "The first trial failed, the second was stopped by rain, and the third succeeded.",
        "Which trial succeeded?",
        ["third", "3rd"],
    ),
    (
        "Tickets are sold online only; at the door one can pay neither in cash nor by card.",
        "Where are tickets sold?",
        ["online"],
    ),
]

CLOSED_QUESTIONS: list[tuple[str, list[str]]] = [
    ("What is the capital of Australia?", ["Canberra"]),
    ("Which planet is known as the Red Planet?", ["Mars"]),
    ("Who wrote 'Romeo and Juliet'?", ["Shakespeare"]),
    ("What is the chemical symbol of gold?", ["Au"]),
    ("How many days does a leap year have?", ["366"]),
    ("What is the largest ocean on Earth?", ["Pacific"]),
    ("In which country is the city of Kyoto?", ["Japan"]),
    ("What gas do plants take in for photosynthesis?", ["carbon dioxide", "CO2"]),
    ("Who painted the Mona Lisa?", ["Leonardo", "da Vinci"]),
    ("How many legs does a spider have?", ["8", "eight"]),
    ("What is the capital of Canada?", ["Ottawa"]),
    ("Which language is spoken in Brazil?", ["Portuguese"]),
    ("What is the hardest natural material?", ["diamond"]),
    ("Which organ pumps blood through the body?", ["heart"]),
    ("In which year did the Second World War end?", ["1945"]),
    ("What is the longest river in South America?", ["Amazon"]),
    ("Who developed the theory of general relativity?", ["Einstein"]),
    ("What is the boiling point of water at sea level in degrees Celsius?", ["100"]),
    ("Which animal is the largest on Earth?", ["blue whale"]),
    ("What is the currency of the United Kingdom?", ["pound", "sterling"]),
    ("How many continents are there?", ["7", "seven"]),
    ("Which metal is liquid at room temperature?", ["mercury"]),
    ("What is the capital of Egypt?", ["Cairo"]),
    ("Who was the first person to walk on the Moon?", ["Armstrong"]),
    ("What do bees make?", ["honey"]),
    ("Which country has the shape of a boot?", ["Italy"]),
    ("What is the freezing point of water in degrees Fahrenheit?", ["32"]),
    ("Which instrument has 88 keys?", ["piano"]),
    ("What is the square shape with three dimensions called?", ["cube"]),
    ("Who is the author of 'The Origin of Species'?", ["Darwin"]),
    ("What is the capital of Norway?", ["Oslo"]),
    ("Which blood cells fight infections, red or white?", ["white"]),
    ("What is the smallest prime number?", ["2", "two"]),
    ("On which continent is the Sahara?", ["Africa"]),
    ("What is the main ingredient of bread?", ["flour"]),
    ("Which star is closest to the Earth?", ["Sun"]),
    ("What is the opposite of 'ancient'?", ["modern", "new", "contemporary"]),
    ("Which sport is played at Wimbledon?", ["tennis"]),
    ("How many minutes are in two hours?", ["120"]),
    ("What is the capital of Turkey?", ["Ankara"]),
    ("Who discovered penicillin?", ["Fleming"]),
    ("What is H2O commonly called?", ["water"]),
    ("Which season comes after winter?", ["spring"]),
    ("Which country built the Great Wall that tourists visit near Beijing?", ["China"]),
    ("What is the tallest mountain in the world?", ["Everest"]),
    ("How many strings does a standard guitar have?", ["6", "six"]),
    ("What is the capital of New Zealand?", ["Wellington"]),
    ("Which vitamin does the skin make in sunlight?", ["vitamin D", " D"]),
    ("Who composed 'The Magic Flute'?", ["Mozart"]),
    ("What is the young of a sheep called?", ["lamb"]),
    ("In which direction does the sun rise?", ["east"]),
    ("What do you call a word that means the same as another word?", ["synonym"]),
    ("Which ocean lies between Europe and America?", ["Atlantic"]),
    ("How many sides does a hexagon have?", ["6", "six"]),
    ("What is the capital of Argentina?", ["Buenos Aires"]),
    ("Which planet has the most visible rings?", ["Saturn"]),
    ("What does a thermometer measure?", ["temperature"]),
    ("Who wrote 'Don Quixote'?", ["Cervantes"]),
    ("What is the primary colour besides red and blue in painting?", ["yellow"]),
    ("Which bird is a symbol of peace?", ["dove"]),
    ("What is the capital of Poland?", ["Warsaw"]),
    ("How many players of one team are on a football (soccer) field?", ["11", "eleven"]),
    ("Which element does the human body need to carry oxygen in the blood?", ["iron"]),
    ("What is the name of the process by which water becomes vapour?", ["evaporation"]),
]

FR, ES, DE, IT, EN = "French", "Spanish", "German", "Italian", "English"
TRANSLATIONS: list[tuple[str, str, list[str]]] = [
    (FR, "Good morning.", ["bonjour"]),
    (FR, "Thank you very much.", ["merci beaucoup"]),
    (FR, "The cat is black.", ["le chat est noir"]),
    (FR, "I am hungry.", ["j'ai faim"]),
    (FR, "Where is the station?", ["où est la gare", "où se trouve la gare"]),
    (FR, "My name is Anna.", ["je m'appelle anna", "mon nom est anna"]),
    (FR, "See you tomorrow.", ["à demain"]),
    (FR, "It is raining.", ["il pleut"]),
    (FR, "How much does it cost?", ["combien ça coûte", "combien cela coûte", "combien coûte"]),
    (FR, "I love you.", ["je t'aime", "je vous aime"]),
    (FR, "The house is big.", ["la maison est grande"]),
    (FR, "We are friends.", ["nous sommes amis", "nous sommes des amis", "nous sommes amies"]),
    (ES, "Good night.", ["buenas noches"]),
    (ES, "The dog is white.", ["el perro es blanco"]),
    (ES, "I do not understand.", ["no entiendo", "no comprendo"]),
    (ES, "Where is the bathroom?", ["dónde está el baño", "dónde está el cuarto de baño"]),
    (ES, "I speak Spanish.", ["hablo español", "hablo castellano"]),
    (ES, "The water is cold.", ["el agua está fría", "el agua es fría"]),
    (ES, "How are you?", ["cómo estás", "cómo está", "qué tal"]),
    (ES, "Today is Monday.", ["hoy es lunes"]),
    (ES, "I want to eat.", ["quiero comer"]),
    (ES, "My brother lives in Madrid.", ["mi hermano vive en madrid"]),
    (ES, "The book is on the table.", ["el libro está en la mesa", "el libro está sobre la mesa"]),
    (ES, "Happy birthday!", ["feliz cumpleaños"]),
    (DE, "Good evening.", ["guten abend"]),
    (DE, "I am tired.", ["ich bin müde"]),
    (DE, "The child is playing.", ["das kind spielt"]),
    (DE, "What time is it?", ["wie spät ist es", "wie viel uhr ist es", "wieviel uhr ist es"]),
    (DE, "I live in Berlin.", ["ich wohne in berlin", "ich lebe in berlin"]),
    (DE, "The apple is red.", ["der apfel ist rot"]),
    (DE, "We are going home.", ["wir gehen nach hause"]),
    (DE, "Do you speak German?", ["sprichst du deutsch", "sprechen sie deutsch"]),
    (DE, "The book is good.", ["das buch ist gut"]),
    (DE, "I drink coffee.", ["ich trinke kaffee"]),
    (
        DE,
        "My mother is a teacher.",
        ["meine mutter ist lehrerin", "meine mutter ist eine lehrerin"],
    ),
    (IT, "Good morning.", ["buongiorno", "buon giorno"]),
    (IT, "I am happy.", ["sono felice", "sono contento", "sono contenta"]),
    (IT, "The sea is beautiful.", ["il mare è bello", "il mare è bellissimo"]),
    (IT, "Where are you?", ["dove sei", "dove siete"]),
    (IT, "I do not know.", ["non lo so", "non so"]),
    (IT, "The bread is good.", ["il pane è buono"]),
    (EN, "Je suis fatigué.", ["i am tired", "i'm tired"]),
    (EN, "Il fait froid aujourd'hui.", ["it is cold today", "it's cold today"]),
    (EN, "Le garçon mange une pomme.", ["boy eats an apple", "boy is eating an apple"]),
    (EN, "Quelle heure est-il ?", ["what time is it"]),
    (EN, "Où habites-tu ?", ["where do you live"]),
    (EN, "Me gusta la música.", ["i like music", "i like the music", "i love music"]),
    (EN, "¿Cuántos años tienes?", ["how old are you"]),
    (EN, "La ventana está abierta.", ["window is open"]),
    (EN, "Mañana voy a Madrid.", ["going to madrid", "go to madrid"]),
    (
        EN,
        "No tengo dinero.",
        [
            "have no money",
            "don't have money",
            "do not have money",
            "don't have any money",
            "do not have any money",
        ],
    ),
    (EN, "Ich habe Hunger.", ["i am hungry", "i'm hungry"]),
    (
        EN,
        "Wo ist der Bahnhof?",
        ["where is the train station", "where is the station", "where is the railway station"],
    ),
    (
        EN,
        "Das Wetter ist schön.",
        [
            "weather is beautiful",
            "weather is nice",
            "weather is lovely",
            "weather is good",
            "weather is fine",
        ],
    ),
    (EN, "Sie liest ein Buch.", ["she reads a book", "she is reading a book", "she's reading"]),
    (
        EN,
        "Wir haben keine Zeit.",
        [
            "we have no time",
            "we don't have time",
            "we do not have time",
            "don't have any time",
            "do not have any time",
        ],
    ),
    (EN, "Il gatto dorme.", ["cat is sleeping", "cat sleeps", "cat is asleep"]),
    (EN, "Ho due fratelli.", ["have two brothers"]),
    (EN, "Parlo italiano.", ["i speak italian"]),
    (EN, "Buona notte.", ["good night", "goodnight"]),
    (EN, "Bom dia.", ["good morning", "good day"]),
    (EN, "Obrigado.", ["thank you", "thanks"]),
]

# Prompts with rules that can be checked without judging style; coterie/value/scoring.py has them.
WRITING: list[tuple[str, list[dict[str, object]]]] = (
    [
        (
            f"Write a birthday message to {name} in exactly two sentences. "
            f"Mention the word {word}.",
            [{"sentences": [2, 2]}, {"contains": [name, word]}],
        )
        for name, word in [
            ("Anna", "sea"),
            ("David", "guitar"),
            ("Mia", "garden"),
            ("Leo", "bicycle"),
        ]
    ]
    + [
        (
            f"Write a poem of exactly four lines about {topic}. "
            "Write the four lines only, without a title.",
            [{"lines": [4, 4]}, {"words": [8, 80]}],
        )
        for topic in ["rain", "a lighthouse", "autumn leaves", "a sleeping cat", "the night train"]
    ]
    + [
        (
            f'Give exactly {n} tips for {topic} as a list of lines that each begin with "- ".',
            [{"bullets": [n, n]}],
        )
        for n, topic in [
            (3, "sleeping well"),
            (4, "saving money"),
            (5, "a good job interview"),
            (3, "growing tomatoes"),
            (4, "learning a language"),
        ]
    ]
    + [
        (
            f"Describe {topic} in at most {n} words.",
            [{"words": [5, n]}],
        )
        for topic, n in [
            ("a thunderstorm", 25),
            ("your favourite season", 30),
            ("a busy market", 20),
            ("the taste of a lemon", 20),
            ("an empty school", 30),
        ]
    ]
    + [
        (
            f'Write a short e-mail to {who} {why}. Begin with "Dear {who}," and end with "Best '
            'regards,\nSam".',
            [{"starts": f"Dear {who},"}, {"ends": "Sam"}, {"words": [20, 130]}],
        )
        for who, why in [
            ("Ms. Lee", "to ask for a day off on Friday"),
            ("Mr. Novak", "to move Tuesday's meeting to Thursday"),
            ("Dr. Stone", "to thank for the good advice"),
            ("Julia", "to invite her to dinner on Saturday"),
            ("Support", "to ask why the invoice is missing"),
        ]
    ]
    + [
        (
            f"Write one paragraph of three to five sentences about {topic} without using the word "
            f'"{word}".',
            [{"sentences": [3, 5]}, {"lacks": [word]}],
        )
        for topic, word in [
            ("the sea", "blue"),
            ("winter", "snow"),
            ("a dog", "loyal"),
            ("a library", "quiet"),
            ("cooking", "food"),
        ]
    ]
    + [
        (
            f"Write a slogan for {topic}. It must contain the word {word} and have at most ten "
            "words. Answer with the slogan only.",
            [{"words": [2, 10]}, {"contains": [word]}],
        )
        for topic, word in [
            ("a bakery", "morning"),
            ("an electric car", "silent"),
            ("a language school", "world"),
            ("a bookshop", "story"),
            ("a gym", "strong"),
        ]
    ]
    + [
        (
            f'Begin a story with the sentence "{sentence}" and go on with two or three more '
            "sentences.",
            [{"starts": sentence}, {"sentences": [3, 5]}],
        )
        for sentence in [
            "The door was open.",
            "Nobody had seen the letter.",
            "It was the last bus of the night.",
            "The map was older than the town.",
            "She had waited for this day.",
        ]
    ]
    + [
        (
            f'Write {n} sentences about {topic}. Each sentence must begin with the word "{word}".',
            [{"sentences": [n, n]}, {"each_starts": word}],
        )
        for n, topic, word in [
            (2, "tea", "Tea"),
            (3, "cats", "Cats"),
            (2, "the moon", "Tonight"),
            (3, "trees", "Trees"),
            (2, "music", "Music"),
        ]
    ]
    + [
        (
            f"Write a title for an article about {topic}, in capital letters only. Answer with the "
            "title only.",
            [{"upper": True}, {"words": [2, 14]}],
        )
        for topic in [
            "bees in cities",
            "working from home",
            "old railways",
            "healthy breakfasts",
            "the deep sea",
        ]
    ]
    + [
        (
            f"Write a product description of {topic} with the words {a} and {b}, "
            "in at most 50 words.",
            [{"words": [10, 50]}, {"contains": [a, b]}],
        )
        for topic, a, b in [
            ("a rucksack", "light", "waterproof"),
            ("a desk lamp", "warm", "adjustable"),
            ("a teapot", "glass", "dishwasher"),
            ("a tent", "two", "wind"),
            ("a kitchen knife", "steel", "balance"),
        ]
    ]
    + [
        (
            f"Write a dialogue of exactly four lines between {a} and {b}. "
            "Each line begins with the speaker's name and a colon.",
            [{"lines": [4, 4]}, {"line_starts": [f"{a}:", f"{b}:"]}],
        )
        for a, b in [
            ("Tom", "Eva"),
            ("Teacher", "Pupil"),
            ("Cat", "Dog"),
            ("Waiter", "Guest"),
            ("Robot", "Child"),
            ("Doctor", "Patient"),
        ]
    ]
)
