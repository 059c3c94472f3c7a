"""Words that the rule for head nouns knows (`head_nouns.py`): closed classes, and what referring expressions often hold.

A tagger that was trained on sentences is unsure about fragments such as "far left bike"; these words are told by the list.
"""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


NOTHING_NAMED = "object"
"""Stands for the thing of an expression that names none: "far right", "the red one", "closest to us"."""

DETERMINERS = word_set(
    "a an the half this that these those some any each every both all another other no my your his her its our their whose"
)
SIDES = word_set("left right middle center centre mid leftmost rightmost far")
"""Of these, "X of Y" is a place beside or within Y: not Y itself."""
PLACES = SIDES | word_set(
    "top bottom front back rear side sides corner edge end upper lower topmost bottommost uppermost lowermost foreground "
    "background forefront front-most row rows column line behind closest nearest furthest farthest closer nearer further "
    "farther first second third fourth fifth sixth seventh eighth ninth tenth 1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th last "
    "next most very number lft rt rgt btm center-left center-right"
)
VAGUE = word_set("half part parts portion section area spot region position")
"""Name no thing by themselves: "left part" is a place."""
FRAMES = word_set(
    "picture pictures pic pics photo photos photograph photographs image images shot snapshot view closeup scene screen "
    "frame"
)
"""What shows a thing, or what is shown: "a picture of a dog" is about the dog, "left of the picture" is a place."""
SURROUNDINGS = FRAMES | word_set("group camera viewer room line row us you me")

PARTITIVES = VAGUE | word_set(
    "slice slices piece pieces group groups bunch bunches pair pairs couple herd herds flock flocks stack stacks pile piles "
    "lot lots bit bits kind kinds type types sort set sets crowd team pack cluster clump chunk chunks bite dozen loaf "
    "loaves strip strips sheet sheets stalk stalks floret florets sprig handful trio majority roll patch mound heap string "
    "swarm school gang series collection variety assortment rest remainder number sliver wedge wedges quarter quarters "
    "halves third thirds spoonful scoop scoops row rows line lines body tip front back rear top bottom side sides end ends "
    "edge edges corner corners"
)
"""In "X of Y" the thing is Y. Containers are none of them: a glass of wine is a glass."""
GREENS = word_set("broccoli lettuce cabbage cauliflower garlic")
"""In "head of Y" the thing is Y if it is one of these."""

COLOURS = word_set(
    "red blue green yellow black white brown grey gray pink purple orange beige tan gold golden silver maroon navy teal "
    "turquoise violet burgundy khaki cream magenta lime peach multicolored colorful dark blonde blond striped plaid "
    "checkered"
)
FRUIT = word_set("orange peach lime blonde blond cream")
"""Colours that are things where no other noun follows."""

PERSONS = {
    "he": "man",
    "him": "man",
    "she": "woman",
    "her": "woman",
    "someone": "person",
    "somebody": "person",
    "anyone": "person",
    "anybody": "person",
    "everyone": "people",
    "everybody": "people",
    "whoever": "person",
    "who": "person",
    "they": "people",
    "them": "people",
    "we": "people",
    "us": "people",
    "you": "person",
    "i": "person",
    "me": "person",
}
THINGS = word_set(
    "one ones it this that these those what which something anything everything all both another other none"
)
COPULAS = word_set("is are was were be being been 's 're am isn't aren't looks look seems seem appears")

PREPOSITIONS = word_set(
    "in on at with without by near from of to behind beside besides between under underneath below beneath above over "
    "against inside outside into onto across around along alongside through toward towards among amongst past beyond like "
    "than as for about per next-to w/ wearing-of not but except nearest-to atop opposite amid within"
)
PLACING = word_set("in on at from to towards toward")
"""Before a place these make a complete phrase: in "second from left zebra" the zebra is free."""
PARTICLES = word_set("up down off out away upside back apart together")
CLAUSES = word_set("that which who whom whose where when while")

TRANSITIVE = word_set(
    "wearing holding carrying riding eating drinking throwing catching hitting kicking pushing pulling using touching "
    "petting feeding facing reading cutting playing watching driving having swinging showing making taking washing brushing "
    "selling hugging grabbing chasing licking biting wears holds has sporting covering blocking hold wear ride doing giving "
    "getting preparing serving cooking pouring opening talking looking pointing surrounding overlooking cropping hiding "
    "leading chewing reaching following approaching crossing entering wielding clutching gripping"
)
"""Where no article stands before them, the noun that follows is not the thing: "wearing a hat"."""

EATERS = word_set(
    "zebra zebras giraffe giraffes elephant elephants cow cows horse horses sheep goat goats bird birds dog dogs cat cats "
    "bear bears panda animal animals man woman boy girl kid child person people guy lady"
)
"""After "eating" and "drinking" these are who does it: "eating zebra"."""

ING_NOUNS = word_set(
    "building buildings painting paintings ceiling railing clothing wing wings ring rings string strings earring earrings "
    "king thing things wedding awning awnings lightning sibling duckling icing stuffing topping dressing siding evening "
    "morning bedding lettering swing swings pudding drawing drawings carving paneling crossing sling filling stocking "
    "stockings herring clippings covering wiring piping landing opening seating parking sing being beings"
)
KNOWN_NOUNS = word_set(
    "person people man men woman women boy boys girl girls kid kids child children baby babies lady ladies guy guys dude "
    "dudes gentleman gentlemen male female adult adults teen teenager toddler player players umpire ump catcher batter "
    "pitcher goalie skier surfer skater snowboarder rider riders bride groom chef waiter officer soldier mom dad mother "
    "father son daughter grandma grandpa couple bicycle bike bikes car cars motorcycle motorcycles motorbike airplane plane "
    "planes bus buses train trains truck trucks boat boats ship van suv taxi cab hydrant meter bench benches bird birds cat "
    "cats kitten dog dogs puppy horse horses pony sheep lamb cow cows bull calf elephant elephants bear bears zebra zebras "
    "giraffe giraffes goat duck backpack umbrella umbrellas handbag purse bag bags tie suitcase suitcases luggage frisbee "
    "ski skis snowboard ball kite kites bat glove mitt skateboard surfboard racket racquet bottle bottles glass glasses cup "
    "cups mug fork knife spoon bowl bowls plate plates banana bananas apple apples sandwich sandwiches broccoli carrot "
    "carrots hotdog pizza pizzas donut donuts doughnut cake cakes cupcake chair chairs couch sofa loveseat plant plants bed "
    "beds table tables desk toilet tv tvs television monitor laptop mouse remote keyboard phone phones microwave oven stove "
    "toaster sink fridge refrigerator book books clock clocks vase scissors teddy toothbrush shirt shirts jacket coat hat "
    "hats cap dress skirt pants jeans shorts shoe shoes sneakers boot boots helmet sweater hoodie vest suit uniform scarf "
    "hand hands arm arms leg legs head face hair foot feet finger fingers knee elbow tree trees grass water wall "
    "window door floor building sign fence pole light lamp pillow blanket box boxes basket bread meat salad soup rice food "
    "noodles bun fries egg eggs cheese tomato wheel tire tractor wagon cart stroller counter shelf curtain"
)

MIXED = word_set("ham bacon salt mac macaroni fish chip peanut bread")
"""Of "X and Y Z" these are part of the name of Z: "ham and cheese sandwich"."""

COMPOUNDS = word_set(
    "hot-dog hot-dogs ice-cream sea-lion sea-lions guinea-pig guinea-pigs remote-control remote-controls"
)
"""Two words of which the second alone names another thing."""
