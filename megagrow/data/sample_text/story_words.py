"""Word lists of the story generator.

Each list is a block of entries parted by commas or, where an entry has several forms, one entry a
line with its forms parted by ``/`` in the order that the comment above the list names.
"""

from __future__ import annotations

GIRLS = """Mia, Lily, Anna, Rosa, Nora, Ella, Zoe, Ivy, Ruby, Clara, Maya, Lucy, Emma, Sara, Tina,
June, Alice, Hana, Leila, Amy, Grace, Daisy, Olga, Vera, Ines, Kate, Molly, Penny, Freya, Nina,
Sofia, Tess, Wendy, Yara, Bella, Carla, Dora, Eva, Fay, Gina, Holly, Iris, Jane, Kira, Lena"""

BOYS = """Tom, Ben, Max, Leo, Sam, Jack, Noah, Finn, Omar, Luca, Tim, Adam, Oscar, Peter, Hugo,
Ravi, Kenji, Paul, Theo, Milo, Dan, Eli, Felix, Gus, Henry, Ivan, Jonas, Karl, Liam, Mark, Nick,
Otto, Pablo, Ray, Simon, Ted, Victor, Will, Yusuf, Zack, Alan, Bruno, Carl, Diego, Emil"""

ANIMALS = """rabbit, fox, bear, mouse, hedgehog, squirrel, badger, beaver, otter, duck, frog, owl,
turtle, deer, raccoon, goat, lamb, pony, kitten, puppy, penguin, panda, monkey, elephant, lion,
giraffe, koala, mole, goose, piglet, calf, wolf cub, parrot, crab, seal, snail, ant, bee"""

PET_NAMES = """Pip, Coco, Dot, Biscuit, Nibbles, Fuzzy, Bobo, Sunny, Pepper, Button, Mango, Teddy,
Bubbles, Poppy, Rusty, Snowy, Waffle, Cricket, Peanut, Olive, Toffee, Berry, Hopper, Patch, Socks,
Bramble, Clover, Dusty, Echo, Fern, Ginger, Hazel, Jasper, Kiwi, Lulu, Moss, Nutmeg, Pebble"""

# title/pronoun
ELDERS = """Mom/she
Dad/he
Grandma/she
Grandpa/he
Aunt Rosie/she
Uncle Bill/he
Mrs. Green/she
Mr. Brown/he
Miss Honey/she
Farmer Joe/he
Nana/she
Old Martha/she"""

WILD_ELDERS = """Mother Bear/she
Father Fox/he
Grandma Goose/she
Old Owl/he
Wise Turtle/he
Aunt Badger/she
Uncle Beaver/he
Mother Deer/she
Old Toad/he
Grandpa Mole/he"""

# place/spot/spot/spot/something found there
PLACES = """the park/the tall slide/the swings/the little pond/a bench
the beach/the big rocks/the wet sand/the blue waves/a shell
the farm/the red barn/the hay stack/the chicken house/a tractor
the garden/the rose bush/the apple tree/the stone wall/a watering can
the market/the fruit stand/the flower stall/the fish shop/a basket
the school yard/the sand box/the climbing bars/the old tree/a bench
the library/the window seat/the tall shelves/the reading corner/a picture book
the lake/the wooden dock/the reeds/the small island/a boat
the village/the stone bridge/the well/the clock tower/a bakery
the toy shop/the big window/the top shelf/the back room/a music box
the zoo/the monkey house/the duck pond/the tall fence/a map
the train station/the ticket window/the long bench/the platform/a clock
the playground/the seesaw/the round tunnel/the rope ladder/a fountain
the back yard/the fence/the old shed/the sand pit/a swing"""

WILD_PLACES = """the forest/the hollow log/the tall pine/the mossy rock/a mushroom
the meadow/the tall grass/the wild flowers/the little stream/a butterfly
the pond/the lily pads/the muddy bank/the willow tree/a dragonfly
the river/the flat stones/the waterfall/the bend/a raft
the hill/the round stone/the old oak/the sunny side/a view
the cave/the dark corner/the cold pool/the narrow path/an echo
the valley/the berry bushes/the old bridge/the quiet field/a windmill
the mountain/the snowy peak/the goat path/the little hut/a cloud
the island/the palm tree/the white sand/the lagoon/a coconut
the orchard/the pear tree/the wooden ladder/the bee hives/a basket"""

TOYS = """ball, kite, doll, teddy bear, toy car, wooden boat, drum, robot, toy train, whistle,
spinning top, music box, paper plane, rocking horse, puppet, marble, hoop, lantern, pinwheel,
scooter, tin soldier, flute, balloon, puzzle box, bell, wagon, trumpet, jump rope, toy truck,
snow globe, magnet, crown, cape, mask, paint box, telescope, hat, scarf, mitten, umbrella"""

COLORS = """red, blue, green, yellow, pink, purple, orange, brown, white, silver, golden, gray"""
LOOKS = """shiny, soft, round, pretty, striped, old, new, wooden, tiny, smooth, fluffy, bright,
spotted, lovely, fancy, plain, warm, light, special, funny"""
SIZES = """big, small, little, tiny, huge, tall, long, wide, giant, short"""

# plural or mass nouns: "some ..."
FOODS = """pancakes, cookies, soup, warm bread, berries, strawberry jam, honey cake, apple pie,
noodles, muffins, cheese, popcorn, carrot cake, rice, pears, plums, nuts, ice cream,
pudding, cherries, waffles, tomato soup, corn, peanut butter, banana bread"""
FRUITS = """apple, pear, plum, peach, cherry, orange, banana, melon, fig, lemon, grape, berry,
pumpkin, carrot, turnip, tomato, potato, cabbage"""
PLANTS = """sunflower, bean, tomato plant, rose, apple tree, pumpkin, tulip, daisy, carrot,
oak tree, cherry tree, lemon tree, pea plant, strawberry plant"""

# do/did/doing
SKILLS = """ride a bike/rode the bike/riding
swim/swam across the water/swimming
whistle/whistled a tune/whistling
paint a picture/painted a picture/painting
tie a bow/tied a bow/tying
skate on ice/skated in a circle/skating
climb the rope/climbed to the top/climbing
bake bread/baked a fine loaf/baking
play the flute/played a song/playing
juggle three balls/juggled three balls/juggling
read a long word/read the long word/reading
throw the ball far/threw the ball very far/throwing
dance/danced on one foot/dancing
fly a kite/flew the kite high/running with the kite
count to one hundred/counted to one hundred/counting
jump over the log/jumped over the log/jumping
catch a fish/caught a fish/fishing
sing a hard song/sang the hard song/singing
stand on one leg/stood on one leg/standing
draw a horse/drew a fine horse/drawing"""

# thing/material
BUILDS = """a tree house/boards and nails
a sand castle/wet sand
a bird house/old wood
a snow man/fresh snow
a raft/logs and rope
a tower/blocks
a little bridge/flat stones
a tent/blankets and sticks
a cart/wheels and a box
a fort/pillows
a nest/twigs and grass
a kite/paper and string
a swing/rope and a board
a den/leaves and branches
a puppet stage/a big box"""

CREATURES = """kitten, puppy, duckling, baby bird, turtle, hedgehog, squirrel, frog, lamb, mouse,
butterfly, bunny, owl, sparrow, chick, robin, pony, snail, fawn, ladybug, bat, lizard, gosling"""
TREASURES = """gold coin, silver key, shiny ring, old map, red button, small box, blue stone,
pretty shell, little book, glass bead, pocket watch, purse, letter, feather, tin whistle, brush,
brass bell, necklace, spoon, wooden horse"""
NOISES = """tap tap, crash, bang, boom, squeak, whoosh, hoot, scratch scratch, creak, thump, drip
drip, rustle, click clack, howl, buzz, rattle, splash, pop, hiss, knock knock"""
NOISE_CAUSES = """a branch at the window, the wind in the trees, a cat in the box, a loose door,
rain on the roof, an old clock, a mouse with a nut, a bird on the roof, a ball on the stairs,
a leaky pipe, a frog in a bucket, the washing on the line, a squirrel in the attic, a moth in a
jar, an owl in the barn, a shutter in the wind"""
WEATHERS = """sunny, windy, rainy, snowy, warm, cold, cloudy, foggy, bright, quiet, hot, cool"""
TIMES = """One morning, One day, One afternoon, One evening, On Monday, On Sunday, On Saturday,
The next day, In spring, Last summer, One fall day, One winter day, After lunch, Before dinner,
Early one morning, Late one day, On Tuesday, On Friday"""
NUMBERS = """two, three, four, five, six, seven, eight, nine, ten"""
TRAITS = """kind, brave, shy, happy, clever, curious, gentle, noisy, quiet, careful, funny, busy,
sleepy, playful, proud, hungry, friendly, helpful, stubborn, cheerful, lonely, patient, silly"""
GLAD = """happy, glad, proud, pleased, full of joy, cheerful, delighted, merry"""
SAD = """sad, upset, worried, unhappy, lonely, gloomy, troubled"""
SCARED = """scared, afraid, nervous, frightened, worried"""
TIRED = """tired, sleepy, worn out, weary"""
LOUDLY = """loudly, happily, with a smile, with a laugh, in a big voice, at once, proudly"""
SOFTLY = """softly, quietly, in a small voice, with a sigh, gently, slowly, in a whisper"""
MOVED = """ran, walked, hurried, skipped, hopped, marched, raced, went, rushed, strolled, dashed"""
GAMES = """hide and seek, tag, pirates, follow the leader, catch, store, knights, a guessing game,
leap frog, dress up, train driver, hop and stop, treasure hunt, doctor, school"""
SKY = """a rainbow, a red sunset, the first star, a flock of geese, a shooting star, a full moon,
a hot air balloon, a cloud like a whale, a cloud like a sheep, a bright comet, a row of swallows"""
JOBS = """sweep the floor, water the flowers, feed the hens, wash the cups, carry the wood, fold
the blankets, pick the beans, set the table, rake the leaves, clean the windows, mend the fence,
shell the peas, dust the shelves, stack the books, brush the pony"""
WISHES = """a pair of wings, a mountain of candy, a boat that could fly, a tail, a voice like a
lion, shoes that ran fast, a house of glass, a day with no end, a talking book, a garden of stars,
a cloud to ride on, a hat that made people laugh, a horse made of wind, a pocket with no bottom"""
WOW = """Wow, Look, Oh my, Hooray, Hello, Oh, Goodness, Yes, Come here, Listen"""
MORALS = """share with friends, tell the truth, ask for help, try again, be kind to small animals,
listen to others, say sorry, be patient, help each other, take care of your things, think first,
be brave, work together, keep a promise, say thank you, rest when you are tired, wait your turn"""
DAYS = """Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"""
HUNGRY = """hungry, very hungry, thirsty, so hungry, a bit hungry"""
FAR_PLACES = """the sea, the big city, the tall mountain, the waterfall, the old castle, the snow,
the lighthouse, the end of the rainbow, the hot desert, the deep forest, the island of birds, the
secret lake, the valley of flowers, the sleeping volcano, the river of gold, the moon gate"""

# who/pronoun
STRANGERS = """an old man/he
an old woman/she
a tall man/he
a woman in a green coat/she
a sailor/he
a little girl with red hair/she
a boy with a dog/he
a farmer/he
a mail carrier/she
a painter/she
a lady with a stick/she
a baker/he
a small boy in big boots/he
a nurse/she"""

# with article and looks/short name
WIZARDS = """a tiny fairy/fairy
a blue genie/genie
a talking fish/fish
a small green dragon/dragon
a unicorn with a golden horn/unicorn
a frog with a crown/frog
an elf in a red hat/elf
a silver bird/bird
a mermaid with long hair/mermaid
a cloud with a face/cloud"""
