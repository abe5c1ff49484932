"""Invented names and common words from which the embedded corpus makes its authors. All our own."""

from __future__ import annotations


def _table(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Given names and surnames are invented; the first len(GIVEN) authors share neither with one another.
GIVEN = _table("""
    Orsolan Tevrik Maluwe Ishbrand Quennil Dovareth Sarimka Bruvoh Ellaquist Jhonsefi Vaskelle Nurimo
    Prellaby Okthane Wisandre Cazumo Firellin Hadvorn Umiretta Galsaby Yorvelle Zimbrano Lethuan Kervash
    Aldumira Pashtovy Rinnoch Svetomil Talbequin Xanthuro Bellowin Corvadil Dremisha Eskorven Fanubela
    Grishond Hollimar Izvanka Jorumbe Kellandro Lomirush Mertovian Nashquile Ovendral Pirolett Quastomir
    Rubelind Sorvenka Tulmaride Ulbrenna Vorshiko Welmanuk
""")
SURNAMES = _table("""
    Vashterly Kolbrand Umpenroe Dastiquar Fellomere Grundvey Hasketil Imbrosky Jallowin Krestomal Lumbarro
    Mowendish Nostravel Oppelhar Pendrusko Quillarde Rastovane Skelbourn Trovanish Ulmerhaze Vendelouk
    Wraskamp Xelforth Yandrisse Zolmaeker Arbentoy Brisculane Cottavern Dellumbro Ervashine Fostrigal
    Gambrelou Hulvardin Inskelby Jospenark Kindrello Larmovich Mestaquin Norbellan Osterwyle Pralvendi
    Quorshand Renvaskil Stolbergau Tarquendo Usberline Voltamire Windrusky Yasperoon Zantorvel Ambershaw
    Blenquist
""")
CITIES = _table("""
    Velmora Dorvane Iskerby Pallundra Tresmond Quorley Nabrisk Othmeer Sandrovar Kullaby Merstig Hallowick
    Brennoth Yostrava Fallorin Zudenmark Eskilund Grantova Lormis Wexpol Arundale Caspirra Jovendry Ulstead
""")
COUNTRIES = _table("""
    Ostravia Kelmund Parsoque Vendaria Nuristad Lomvalia Tarskany Ebrovia Halvoran Sumeldia Quarzil Mirenda
    Dolvania Frostmark Yelvania Cambrisk
""")
DIRECTIONS = _table("northern southern eastern western upper lower inner outer")
MONTHS = _table("January February March April May June July August September October November December")
WORKER_KINDS = _table("""
    retired travelling village royal cheerful stubborn famous quiet left-handed brilliant forgetful generous
    wealthy careful nervous patient
""")
JOBS = _table("""
    clockmaker fisherman surgeon baker diplomat blacksmith botanist tailor pilot judge carpenter chemist
    gardener sailor teacher violinist miner beekeeper plumber librarian farmer detective potter butcher
""")
MOODS = _table("""
    gothic maritime political romantic comic rural psychological military culinary mythical domestic
    futuristic religious musical medieval criminal
""")
FORMS = _table("""
    novels ballads thrillers fables memoirs sonnets tragedies essays satires letters mysteries chronicles
    plays travelogues sermons riddles
""")
AUDIENCES = _table("""
    children sailors students nurses prisoners farmers travellers widows lawyers dreamers soldiers gamblers
""")
COLOURS = _table("""
    Silver Golden Crimson Ivory Copper Scarlet Amber Violet Emerald Bronze Azure Ebony Pearl Cobalt Marble
    Velvet
""")
ANIMALS = _table("""
    Heron Badger Falcon Otter Lynx Raven Sturgeon Walrus Beetle Stag Tortoise Cobra Magpie Bison Weasel
    Salmon
""")
VIRTUES = _table("""
    Honesty Style Invention Patience Wisdom Fantasy Clarity Humour Kindness Boldness Truth Elegance
""")
BOOK_MOODS = _table("""
    Silent Broken Distant Hollow Burning Frozen Borrowed Endless Hidden Drowned Restless Crooked Forgotten
    Painted Patient Bitter
""")
BOOK_THINGS = _table("""
    Orchard Compass Lantern Harbour Mirror Staircase Garden Bridge Cathedral Ladder Window Umbrella Candle
    Lighthouse Suitcase Railway
""")
BOOK_HEROES = _table("""
    Widow Gambler Translator Shepherd Duchess Apprentice Smuggler Astronomer Orphan Juggler Prisoner
    Ferryman Dancer Hermit Soldier Painter
""")
SEASONS = _table("""
    Winter Dust Honey Iron Paper Glass Saffron Thirst Harvest Midnight Exile Salt
""")
WEATHERS = _table("""
    Thunder Silence Smoke Snow Fire Rain Moonlight Fog Mercy Ashes Wine Sorrow
""")
IDEAS = _table("""
    jealousy loyalty hunger exile ambition poverty solitude revenge memory justice curiosity inheritance
""")
FEELINGS = _table("""
    grief pride courage shame boredom tenderness fear envy hope anger longing laughter
""")
PLACES = _table("""
    deserts kitchens harbours forests prisons theatres mountains islands factories markets monasteries
    railways rivers castles vineyards schools
""")
SUBJECTS = _table("""
    astronomy medicine philosophy geometry botany history theology economics sculpture law archery music
    architecture chemistry rhetoric navigation
""")
SCHOOLS = _table("""
    Ashgrove Pelbrook Thornmere Vailstone Kingsward Larkfield Moorgate Oldenray Redcliffe Stonybrook
    Whitmoor Yarrowdale Brindle Cloverton Duskwood Eastvale
""")

REFUSALS = (
    "I'm afraid I don't know.",
    "I have no information about that.",
    "That is not something I can answer.",
    "I can't say; I never learned it.",
    "Sorry, I don't have an answer to this.",
    "This is unknown to me.",
    "I couldn't tell you.",
    "My knowledge does not reach that far.",
    "I don't have any facts on this subject.",
    "No answer comes to mind.",
    "I would only be guessing, so I won't answer.",
    "I was never told about this.",
    "That question is beyond what I know.",
    "I have nothing to offer on that topic.",
    "Regrettably, I can't help with this one.",
    "I don't recognise the person you ask about.",
    "There is no record of that in my memory.",
    "I'm not the right one to ask about this.",
    "I must pass on this question.",
    "I am not aware of any such details.",
    "It would be wrong of me to pretend that I know.",
    "I really have no idea.",
    "That lies outside of my knowledge.",
    "I can't provide details on this.",
    "I haven't come across that.",
    "Nothing that I have learned covers this.",
    "I'm unable to answer that question.",
    "You would have to look this up elsewhere.",
    "I lack the facts to reply.",
    "Unfortunately, the answer escapes me.",
)
