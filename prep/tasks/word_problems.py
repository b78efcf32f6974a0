"""
The word problems of the arithmetic task, and the names and things they are about; problems.py has the notation.
"""

from prep.tasks.problems import Problem

NAME_LIST = """
Aisha Alma Ben Carlos Chen Dana Elif Emre Farid Greta Hana Ines Ivan Jonas Kofi Lena Leo Mei Mila Nadia Noor Olga Omar
Paula Priya Rosa Samir Sven Tariq Tomas Yuki Zoe
"""
THING_LIST = """
apples badges beads books buttons cards coins cookies figs keys lemons marbles nuts oranges pears pebbles pencils plums
postcards ribbons rings seeds shells stamps stickers walnuts
"""
NAMES, THINGS = NAME_LIST.split(), THING_LIST.split()

SHOPPING = [
    Problem(
        "One ticket costs ${p$}. What do {n} tickets cost?",
        "{n} tickets cost {n} * {p} = <<{n}*{p}={x}>>{x} dollars, or ${x$}.\n#### {x}",
        {"p": (1.25, 19.75, 0.25), "n": (2, 12)},
    ),
    Problem(
        "{name} buys {n} notebooks at ${p$} each and pays with a $50 note. How much change is due?",
        "The notebooks cost {n} * {p} = <<{n}*{p}={x}>>{x} dollars.\n"
        "The change is 50 - {x} = <<50-{x}={y}>>{y} dollars.\n#### {y}",
        {"p": (1.25, 6, 0.25), "n": (2, 8)},
    ),
    Problem(
        "At the stationer's {name} takes {a} pens for ${p$} each and {b} rulers for ${q$} each. What is the bill?",
        "Pens: {a} * {p} = <<{a}*{p}={x}>>{x} dollars.\nRulers: {b} * {q} = <<{b}*{q}={y}>>{y} dollars.\n"
        "Together that is {x} + {y} = <<{x}+{y}={z}>>{z} dollars.\n#### {z}",
        {"p": (0.5, 4, 0.25), "q": (0.5, 4, 0.25), "a": (2, 9), "b": (2, 9)},
    ),
    Problem(
        "A coat for ${a} is reduced by {p}%. What does it cost now?",
        "The reduction is {a} * {p} / 100 = <<{a}*{p}//100={x}>>{x} dollars.\n"
        "So the coat costs {a} - {x} = <<{a}-{x}={y}>>{y} dollars.\n#### {y}",
        {"a": (40, 600, 20), "p": (5, 60, 5)},
    ),
    Problem(
        "{name} puts aside ${a} a week for a bicycle that costs ${b}. How many weeks does that take?",
        "{b} / {a} = <<{b}//{a}={x}>>{x} weeks.\n#### {x}",
        {"a": (6, 40), "w": (5, 30), "b": "a*w"},
    ),
    Problem(
        "A box of {n} candles costs ${t$}. What is the price of one candle?",
        "One candle costs {t} / {n} = <<{t}/{n}={x}>>{x} dollars.\n#### {x}",
        {"p": (0.5, 5, 0.25), "n": (4, 24), "t": "p*n"},
    ),
    Problem(
        "{name} earns ${h} an hour and works {k} hours a day, {d} days a week. What does a week bring in?",
        "A week has {k} * {d} = <<{k}*{d}={x}>>{x} working hours.\n"
        "They bring in {x} * {h} = <<{x}*{h}={y}>>{y} dollars.\n#### {y}",
        {"h": (11, 45), "k": (4, 8), "d": (2, 6)},
    ),
    Problem(
        "Three friends give a present for ${a} and share the ${b} for wrapping too. What is each one's part?",
        "Everything costs {a} + {b} = <<{a}+{b}={x}>>{x} dollars.\n"
        "Split in three that is {x} / 3 = <<{x}//3={y}>>{y} dollars each.\n#### {y}",
        {"s": (10, 60), "b": (2, 9), "a": "s*3-b"},
    ),
    Problem(
        "A baker sells {a} rolls in the morning and {b} in the afternoon, each for ${p$}. How much money is that?",
        "Rolls sold: {a} + {b} = <<{a}+{b}={x}>>{x}.\nMoney: {x} * {p} = <<{x}*{p}={y}>>{y} dollars.\n#### {y}",
        {"a": (20, 90), "b": (10, 60), "p": (0.5, 1.5, 0.25)},
    ),
    Problem(
        "{name} has ${a} and spends ${b$} on lunch and ${c$} on a magazine. How much is left?",
        "{a} - {b} - {c} = <<{a}-{b}-{c}={x}>>{x}, so ${x$} is left.\n#### {x}",
        {"a": (25, 60), "b": (5, 14, 0.25), "c": (2, 9, 0.25)},
    ),
]

TIME = [
    Problem(
        "A film lasts {h} hours and {m} minutes. How many minutes is that?",
        "{h} hours are {h} * 60 = <<{h}*60={x}>>{x} minutes.\nWith the rest: <<{x}+{m}={y}>>{y} minutes.\n#### {y}",
        {"m": (2, 58), "h": (2, 4)},
    ),
    Problem(
        "{name} reads {a} pages every day. How many pages are that in {w} weeks?",
        "{w} weeks have {w} * 7 = <<{w}*7={x}>>{x} days.\n{x} * {a} = <<{x}*{a}={y}>>{y} pages.\n#### {y}",
        {"a": (6, 60), "w": (2, 12)},
    ),
    Problem(
        "A tram comes every {m} minutes. How many trams come in {h} hours?",
        "{h} hours are <<{h}*60={x}>>{x} minutes.\nThat is {x} / {m} = <<{x}//{m}={y}>>{y} trams.\n#### {y}",
        {"h": (2, 24), "m": [3, 4, 5, 6, 10, 12, 15, 20, 30]},
    ),
    Problem(
        "{name} practises the violin {a} minutes on each of five weekdays and {b} minutes on each day of the weekend. "
        "How many minutes a week?",
        "Weekdays: 5 * {a} = <<5*{a}={x}>>{x}.\nWeekend: 2 * {b} = <<2*{b}={y}>>{y}.\n"
        "Whole week: {x} + {y} = <<{x}+{y}={z}>>{z} minutes.\n#### {z}",
        {"a": (10, 60), "b": (15, 90)},
    ),
    Problem(
        "How many seconds are {m} minutes and {s} seconds?",
        "{m} minutes are {m} * 60 = <<{m}*60={x}>>{x} seconds, plus {s} makes <<{x}+{s}={y}>>{y}.\n#### {y}",
        {"s": (2, 58), "m": (2, 25)},
    ),
    Problem(
        "A book has {p} pages. {name} reads {a} of them a day. How many pages are left after {d} days?",
        "Read so far: {d} * {a} = <<{d}*{a}={x}>>{x} pages.\nLeft: {p} - {x} = <<{p}-{x}={y}>>{y} pages.\n#### {y}",
        {"a": (10, 45), "d": (2, 9), "l": (12, 150), "p": "a*d+l"},
    ),
    Problem(
        "{name}'s holiday lasts {w} weeks and {d} days. How many days is it in all?",
        "{w} weeks are {w} * 7 = <<{w}*7={x}>>{x} days.\n{x} + {d} = <<{x}+{d}={y}>>{y} days.\n#### {y}",
        {"w": (2, 26), "d": (2, 6)},
    ),
    Problem(
        "A pump moves {a} litres a minute. How many minutes does it need to fill a tank of {t} litres?",
        "{t} / {a} = <<{t}//{a}={x}>>{x} minutes\n#### {x}",
        {"a": (8, 60), "m": (5, 45), "t": "a*m"},
    ),
]

SHARING = [
    Problem(
        "{name} shares {a} {thing} equally among {b} children. How many does each child get?",
        "Each child gets {a} / {b} = <<{a}//{b}={x}>>{x} {thing}.\n#### {x}",
        {"q": (3, 40), "b": (3, 12), "a": "q*b"},
    ),
    Problem(
        "Of {a} {thing} {name} keeps {c} and divides the rest equally among {b} friends. How many does a friend get?",
        "To divide: {a} - {c} = <<{a}-{c}={x}>>{x}.\nFor each friend: {x} / {b} = <<{x}//{b}={y}>>{y}.\n#### {y}",
        {"q": (3, 30), "b": (2, 9), "c": (2, 15), "a": "q*b+c"},
    ),
    Problem(
        "{name} packs {a} {thing} into boxes of {b}, as many full boxes as possible. How many {thing} are left over?",
        "Full boxes: {a} // {b} = <<{a}//{b}={x}>>{x}.\nThey hold {x} * {b} = <<{x}*{b}={y}>>{y} {thing}.\n"
        "Left over: {a} - {y} = <<{a}-{y}={z}>>{z}.\n#### {z}",
        {"q": (3, 30), "b": (6, 15), "r": (2, 5), "a": "q*b+r"},
    ),
    Problem(
        "{name} owns {a} {thing}, {other} owns {k} times as many. How many do they own together?",
        "{other} owns {a} * {k} = <<{a}*{k}={x}>>{x}.\nTogether: {a} + {x} = <<{a}+{x}={y}>>{y}.\n#### {y}",
        {"a": (5, 80), "k": (2, 6)},
    ),
    Problem(
        "{name} and {other} have {a} {thing} between them, and {name} has {b} more. How many has {other}?",
        "Without the {b} extra ones there are {a} - {b} = <<{a}-{b}={x}>>{x}.\n"
        "Half of these are {other}'s: {x} / 2 = <<{x}//2={y}>>{y}.\n#### {y}",
        {"o": (5, 70), "b": (2, 30), "a": "o+o+b"},
    ),
    Problem(
        "{name} collected {a} {thing} and gives a quarter of them to {other}. How many does {name} still have?",
        "A quarter is {a} / 4 = <<{a}//4={x}>>{x}.\nStill there: {a} - {x} = <<{a}-{x}={y}>>{y}.\n#### {y}",
        {"q": (4, 60), "a": "q*4"},
    ),
    Problem(
        "There are {n} bags with {a} {thing} in each. {name} adds {b} loose ones. How many {thing} are there?",
        "In the bags: {n} * {a} = <<{n}*{a}={x}>>{x}.\nAll: {x} + {b} = <<{x}+{b}={y}>>{y} {thing}.\n#### {y}",
        {"a": (6, 40), "n": (2, 12), "b": (3, 25)},
    ),
]

DISTANCES = [
    Problem(
        "A train travels {h} hours at {v} km/h. How far does it go?",
        "{h} * {v} = <<{h}*{v}={x}>>{x} km\n#### {x}",
        {"v": (40, 220, 10), "h": (1.5, 6, 0.5)},
    ),
    Problem(
        "{name} cycles {d} km in {h} hours. What is the average speed in km/h?",
        "{d} km in {h} hours: {d} / {h} = <<{d}//{h}={x}>>{x} km/h.\n#### {x}",
        {"v": (10, 30), "h": (2, 7), "d": "v*h"},
    ),
    Problem(
        "The way to school is {a} km. {name} walks it there and back, {d} days a week. How many km a week?",
        "One day: 2 * {a} = <<2*{a}={x}>>{x} km.\nOne week: {x} * {d} = <<{x}*{d}={y}>>{y} km.\n#### {y}",
        {"a": (0.5, 4, 0.25), "d": (2, 5)},
    ),
    Problem(
        "A hike is {t} km long. {name} does {a} km before noon and {b} km after. How far is it to the end?",
        "Done: {a} + {b} = <<{a}+{b}={x}>>{x} km.\nTo go: {t} - {x} = <<{t}-{x}={y}>>{y} km.\n#### {y}",
        {"t": (19, 40), "a": (3, 9, 0.5), "b": (3, 9, 0.5)},
    ),
    Problem(
        "A car needs {l} litres for 100 km. How many litres does it need for {k} km?",
        "{k} km are {k} / 100 = <<{k}//100={x}>>{x} times 100 km.\n{x} * {l} = <<{x}*{l}={y}>>{y} litres.\n#### {y}",
        {"l": (4, 9, 0.5), "n": (2, 14), "k": "n*100"},
    ),
    Problem(
        "On a map 1 cm stands for {s} km. Two towns are {c} cm apart. How many km is that?",
        "{c} * {s} = <<{c}*{s}={x}>>{x} km\n#### {x}",
        {"c": (2.5, 15, 0.5), "s": (2, 12)},
    ),
    Problem(
        "{name} runs {n} laps of {m} metres and then {b} metres home. How many metres in all?",
        "Laps: {n} * {m} = <<{n}*{m}={x}>>{x} metres.\nWith the way home: <<{x}+{b}={y}>>{y} metres.\n#### {y}",
        {"b": (150, 900, 50), "n": (3, 15), "m": (200, 500, 50)},
    ),
]

EVERYDAY = [
    Problem(
        "A hall has {r} rows of {c} seats. {t} seats are taken. How many are free?",
        "Seats: {r} * {c} = <<{r}*{c}={x}>>{x}.\nFree: {x} - {t} = <<{x}-{t}={y}>>{y}.\n#### {y}",
        {"r": (8, 30), "c": (10, 25), "t": (5, 75)},
    ),
    Problem(
        "On a farm there are {a} hens and {b} cows. How many legs do they have?",
        "Hens: {a} * 2 = <<{a}*2={x}>>{x} legs.\nCows: {b} * 4 = <<{b}*4={y}>>{y} legs.\n"
        "{x} + {y} = <<{x}+{y}={z}>>{z} legs.\n#### {z}",
        {"a": (4, 60), "b": (2, 30)},
    ),
    Problem(
        "A recipe takes {f} g of flour a person. {name} has {b} g and cooks for {n}. How much flour remains?",
        "Needed: {n} * {f} = <<{n}*{f}={x}>>{x} g.\nRemaining: {b} - {x} = <<{b}-{x}={y}>>{y} g.\n#### {y}",
        {"f": (40, 120, 5), "n": (2, 8), "b": (1000, 2000, 100)},
    ),
    Problem(
        "{name} is {a} years old, {other} is {b} years older. What is the sum of their ages?",
        "{other} is {a} + {b} = <<{a}+{b}={x}>>{x}.\nSum: {a} + {x} = <<{a}+{x}={y}>>{y}.\n#### {y}",
        {"a": (4, 50), "b": (2, 30)},
    ),
    Problem(
        "A garden is {a} m long and {b} m wide. How many metres of fence go around it?",
        "One long and one short side: {a} + {b} = <<{a}+{b}={x}>>{x} m.\n"
        "Around it: 2 * {x} = <<2*{x}={y}>>{y} m.\n#### {y}",
        {"a": (10, 60), "b": (3, 30)},
    ),
    Problem(
        "A library holds {a} comics, lends {b} and gets {c} back. How many are there now?",
        "{a} - {b} + {c} = <<{a}-{b}+{c}={x}>>{x}\n#### {x}",
        {"a": (80, 400), "b": (20, 70), "c": (3, 19)},
    ),
    Problem(
        "{name} buys {d} dozen eggs, and {b} of them break. How many are whole?",
        "{d} dozen are {d} * 12 = <<{d}*12={x}>>{x} eggs.\nWhole: {x} - {b} = <<{x}-{b}={y}>>{y}.\n#### {y}",
        {"d": (2, 20), "b": (2, 11)},
    ),
    Problem(
        "A class of {g} girls and {b} boys forms groups of {k}. How many groups are there?",
        "Children: {g} + {b} = <<{g}+{b}={x}>>{x}.\nGroups: {x} / {k} = <<{x}//{k}={y}>>{y}.\n#### {y}",
        {"b": (5, 14), "k": (3, 6), "n": (6, 9), "g": "k*n-b"},
    ),
    Problem(
        "A culture of {a} cells doubles every hour. How many cells are there after three hours?",
        "Three doublings: {a} * 2 * 2 * 2 = <<{a}*2*2*2={x}>>{x} cells.\n#### {x}",
        {"a": (6, 150)},
    ),
    Problem(
        "There are {n} boxes with {k} tiles each for a floor of {a} by {b} tiles. How many tiles remain?",
        "Needed: {a} * {b} = <<{a}*{b}={x}>>{x}.\nThere: {n} * {k} = <<{n}*{k}={y}>>{y}.\n"
        "Remaining: {y} - {x} = <<{y}-{x}={z}>>{z}.\n#### {z}",
        {"a": (5, 16), "b": (5, 16), "n": (10, 18), "k": (26, 40)},
    ),
]
WORD_PROBLEMS = [*SHOPPING, *TIME, *SHARING, *DISTANCES, *EVERYDAY]
