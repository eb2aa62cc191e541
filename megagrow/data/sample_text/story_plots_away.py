"""Plots of the story generator that happen outdoors.

The format is that of story_frames.py.
"""

from __future__ import annotations

PLOTS = {
    "hurt animal": """
Near {spot}, {hero} heard a [small|sad|soft] sound. It was a {color} {creature} with a hurt
    [leg|foot].
{Times}, {hero} found a [tiny|little|baby] {creature} [under|behind|next to] {spot}. It was cold
    and {scared}.
A {creature} [sat|lay] in the grass by {spot}. It could not [move|go home]. {Hero}
    [stopped|knelt down].

"Poor thing," said {hero} {softly}. "[Where is your mother|Are you lost|Does it hurt]?"
"Do not be {scared}," {hero} said. "I will [help you|not hurt you]." The {creature} looked at
    {him}.
{Friend} came too. "[We should|Let us] take it to {elder}," {fhe} said. "{Ehe} will know what to
    do."

They put the {creature} in [a box|a basket|{hero}'s hat] with [soft grass|a warm scarf].
{Hero} [wrapped|held] it in {his} {color} scarf and {moved} [home|to {elder}].
{Elder} washed the leg [with warm water|gently] and said, "It needs rest, food and [love|time]."

They gave it [some water|some milk|small bits of {fruit}]. At first, it did not [eat|move]. Then
    it took a [bite|sip].
{Hero} named it {pet}. {He} sat by its side [all night|every day] and told it about {place}.
For {numbers} days, {hero} [fed|cared for] {pet}. {Pet} grew [strong|fat and happy] and
    [liked|loved] {food} best.

?"[May|Can] I keep {pet}?" asked {hero}. {Elder} said, "{Pet} has a home in the wild,
    [dear|little one]."
?{Friend} came with {food} each day. {Pet} [jumped up|made a happy sound] when {fhe} came in.

[One {weathers} morning|After a week], {pet} could [walk|run|play] again. They took {pet} back
    to {spot}.
Then {pet} was well. {Hero} was {sad} to say [goodbye|farewell], but {he} opened the [box|door].
At {spot}, a big {creature} was waiting. It was {pet}'s mother! {Pet} ran to her.

Now {pet} comes to see {hero} [every spring|when it is {weathers}]. They are still friends.
{Hero} waved. "[Come back soon|Be well], {pet}!" {he} said. {Pet} [looked back|turned around]
    one time.
""",
    "storm": """
{Hero} and {friend} were playing {game} near {spot}. Then the sky grew [dark|gray|black].
It was {weathers} when they left for {place}. But soon the wind [blew hard|began to howl].
"Look at that cloud," said {friend}. "It looks like a {color} {creatures}." Then they felt the
    first drops.

The rain came down. {noise}! went the sky. {Friend} was {scared}.
"{noise}!" said the [sky|wind]. {Hero} [held on to|took] {friend}'s hand. "[We must|Let us] find
    a dry place!"
Soon they were [wet|cold] from head to toe. The path [was gone|had turned to mud].

"[Come|This way]!" [called|shouted] {hero}. They {moved} to {spot2} and [hid|sat down] there.
They saw a [light|lamp] by {spot2}. It was {elder}! "Come in, come in," {ehe} said.
A {creature} showed them a [dry|small] place under {spot2}. There was room for [all|three].

To feel better, they sang [a song|every song they knew] and told stories about {place}.
{Elder} gave them {food} and a {looks} {color} blanket. "[Storms|All storms] go away in the
    end," {ehe} said.
{Hero} was {scared} too, but {he} [smiled|did not say so]. "Let us count to [ten|one hundred],"
    {he} said.
They made a [boat|hat] from a leaf, and {friend} told a story about {neighbor} and a {looks}
    {toys}.

Then it was quiet. The rain [stopped|had stopped]. They saw {sky}.
After a while, the sun came out. The [grass|whole world] was [wet|clean] and {color}.
In the end, the wind [went to sleep|grew soft]. "[Listen|Look]," said {friend}. "It is over."

They jumped in the [puddles|mud] all the way home. {noise}! [Splash|Splish, splash]!
"I [was|am] not {scared} now," said {friend}. "[Not with you|You were brave], {hero}."
""",
    "garden": """
{Elder} gave {hero} a small [brown|black|round] seed. "[What is it|What will it be]?" asked
    {hero}. "Wait and see," said {elder}.
{Times}, {hero} found {numbers} seeds near {spot}. {He} [wanted|made up {his} mind] to grow a
    {plant}.
{Hero} wished for a {plant} of {his} own. So {he} went to {elder} and asked for a seed.

{He} [made|dug] a hole in the ground by {spot2}, put the seed in and gave it water.
They planted it [near|next to] {spot2}. {Friend} brought [water|a watering can], and {hero}
    [sang|hummed] to it.
{Hero} put it in a {color} pot and set the pot in the sun.

The next day, {he} looked. Nothing! {He} looked on {days}. [Still nothing|Nothing again]! {Hero}
    was {sad}.
"Why does it not grow?" asked {hero}. "[Be patient|A seed needs time]," said {elder}. "[Sun,
    rain and time|Water and sun] will do it."
Day after day, {he} gave it water. It was {weathers}, then {weathers}, then {weathers}.

?A {creature} wanted to eat it. "[Shoo|Go away]!" said {hero}. Then {he} gave the {creature}
    some {foods}.
?One night there was a [big wind|frost]. {Hero} put {his} [hat|scarf|coat] over the pot to keep
    it warm.

Then, one morning, there was a tiny green leaf. "{Wow}!" [shouted|cried] {hero}. "It is growing!"
After {numbers} days, something green came up. {Hero} {moved} to tell {friend}.
At last, a little [stem|leaf] came out of the ground. It was as [small|thin] as a {creatures}'s
    ear.

It grew and grew. Soon it was as tall as {friend}, then as tall as {elder}.
By summer, it was a {size} {plant}, and [bees|birds|children] came from all over {place} to see
    it.
The {plant} got {numbers} leaves, then a bud, and then the bud [opened|turned {color}].

{Hero} gave [a flower|the first {fruit}] to {elder} and kept {numbers} seeds for next year.
"I made that," said {hero} {loudly}. "[You|The sun] and the rain did," laughed {elder}.
""",
    "building": """
{Hero} and {friend} wanted to build {build}. They [needed|looked for] {material}.
"Let us make {build}!" said {hero}. "[Yes|Great], but we need {material}," said {friend}.
{Times}, {elder} said, "I have some {material} for you." {Hero} knew what to do: build {build}!

They [carried|brought] it all to {spot}. {Hero} [drew|made] a plan with a {color} pencil.
{Hero} did one part, and {friend} did the other. They worked from [morning to noon|breakfast to
    lunch].
{Friend} found {numbers} more pieces by {spot2}. They were [heavy|dirty|too long], but they
    would do.

But then, {noises}! It [fell down|broke]. "[You did it wrong|It is your fault]!" said {hero}.
    "No, [you|yours]!" said {friend}.
A {creature} ran through it, and {noises}, it all came down. They looked at each other.
The wind came and blew it over. They were {sad}. "[All that work|What now]?" said {friend}
    {softly}.

{Elder} came to look. "[A good wall|Every good thing] starts at the bottom," {ehe} said. "Make
    it wide, then make it tall."
"I am sorry," said {hero}. "[We can|Let us] try another way." {Friend} [nodded|took {his} hand].
They sat down and [thought|had some {foods}]. Then {friend} had an idea. "We can tie it with
    [rope|my belt]!"

So they began again. This time, they [worked slowly|helped each other]. {Hero} held, and
    {friend} [tied|pushed].
They made it [wide|strong] at the bottom. They put the {sizes} pieces first and the {sizes}
    pieces last.

When the sun went down, it was done. It was {size} and {looks}, and it did not fall.
"{Wow}!" said {elder}. "That is the [best one|finest one] I have seen near {place}."
They put a {colors} {toys} on top and [sat inside|stood back to look]. It was [perfect|just
    right].
""",
    "found treasure": """
[By|Near|Behind] {spot}, {hero} found a {treasure}. It was {looks} and {color}. "{Wow}!" {he}
    said.
{Times}, {hero} saw something [shine|sparkle] in the grass by {spot}. It was a {treasure}.
{Hero} dug a hole near {spot} and hit something hard. It was a box, and in the box was a
    {treasure}!

"[Who does it belong to|Whose is it]?" asked {friend}. {Hero} did not know. {He} [wanted|hoped]
    to keep it.
"I will be rich!" said {hero}. {Friend} [frowned|looked at it]. "But someone must [miss it|be
    looking for it]," {fhe} said.
It had a [name|letter] on it, but the name was too [old|small] to read.

They asked {neighbor} near {spot2}. "It is not mine," {ehe} said. "[Try|Ask at] {spot3}."
They asked {numbers} people at {place}. "[No|Not me]," said one. "[Sorry|No idea]," said the
    other.
They made a sign: FOUND, ONE {treasure}. They put it up by {spot2} and waited.

Then they saw {stranger} by {spot3}. {Xhe} was {sad} and was looking for something.
On {days}, there was a [knock|tap] on the door. It was {stranger}. "I have lost my {treasure},"
    {xhe} said {softly}.
{Stranger} came slowly down the path. "[It was|It is] all I have from my
    [mother|father|brother]," {xhe} said.

{Hero} held the {treasure} [tight|for a moment]. It was so {looks}. Then {he} [gave it
    back|opened {his} hand].
"Is this [it|yours]?" asked {hero}. "Yes! Oh, thank you, thank you!" [said|cried] the
    [stranger|owner] {loudly}.

"You are [honest|good] children," {xhe} said and gave them [{numbers} coins|some {foods}|a ride
    home].
As a thank you, {hero} got a {looks} {toys} that [was even better|made {him} very {glad}].
{Hero} had no {treasure} now, but {he} felt [rich|warm] inside.
""",
    "race": """
There was a big race at {place}. {Hero} and {friend} [wanted to win|put on their fast shoes].
"I am the [fastest|best]," said {friend} {loudly}. "I will win the race to {spot3}, and you will
    be last!"
{Times}, all the [children|animals] came to {place} for the race. The prize was a {looks}
    {color} {toy}.

{Hero} was [slow|small] and had short legs. {He} was {scared}, but {he} [wanted to try|stood in
    line].
"You can do it, {hero}," said {elder}. "[Run your own race|Do your best]."

"One, two, three, go!" [called|shouted] {elder}. {Noises}! They {moved} past {spot}.
The [whistle|bell|horn] went off, and they all ran. {Friend} was first. {Hero} was [last|number
    {numbers}].

At {spot2}, {friend} [stopped to eat {foods}|looked back and laughed|sat down to rest]. "I have
    lots of time," {fhe} said.
Near {spot2}, {friend} [fell|hurt {fhis} foot]. "Ouch!" {fhe} cried. The others ran past {fhim}.
A {creature} [was stuck|sat] in the middle of the path. {Friend} jumped over it, but {hero}
    stopped to help.

{Hero} did not stop. Step by step, {he} came [closer|nearer] to {spot3}. {He} was {tired}, but
    {he} went on.
{Hero} stopped and [gave {friend} {his} hand|helped {friend} up]. "[Let us|We can] run
    together," {he} said.
"[Go on|Keep going]!" called {elder}. {Hero} thought of {foods} and ran [on|faster].

They came to the end at the same time. Everyone [clapped|cheered]. "You both win!" said
    {elder}.
{Hero} was first! {Friend} could not believe it. "[Well done|You are fast], {hero}," {fhe} said.
{Hero} did not win, but {elder} gave {him} the {toy}. "[This is|It is] for the kindest
    [runner|one]," {ehe} said.
""",
    "journey": """
{Hero} had never seen {far_place}. "[Is it far|What is it like]?" {he} asked {friend}. "[Very
    far|I do not know]," {fhe} said.
"Behind {place}, there is {far_place}," said {elder}. "[I went there|I saw it] when I was
    [small|your age]." {Hero} wanted to go.
{Times}, {hero} packed some {food}, a [map|blanket] and {his} {color} {toy}. "I am going to
    {far_place}," {he} said.

They went past {spot} and over {spot2}. {Friend} carried the [food|bag].
They [walked|went] for {numbers} hours. They saw {sky}, and a {creatures} and a {creatures}
    crossed the road.
On the first day, they met a {creature} that was {traits} and {traits}. It showed them the way
    to {spot3}.

But then the path [split in two|came to an end]. "[Left|Right]," said {hero}. "[No, the other
    way|Are you sure]?" said {friend}.
At {spot3} there was a {size} [hole|river], and no way to cross it. "We can not go on," said
    {friend}. {Fhe} was {sad}.
It got dark and cold. {noise}, went something in the trees. {Friend} was {scared}. "I want to go
    home," {fhe} said {softly}.

{Hero} [looked|thought] for a long time. "[We can use|I see] the [rope|old boat|long
    branch|fallen tree]," {he} said. So they [crossed|went on].
A {creature} came and said, "[Follow me|I know the way], but I am {hungry}." They gave it some
    {foods}.
They made a small fire, ate {food} and [sang|told stories]. In the morning, they [felt|were]
    brave again.

And then they saw it: {far_place}! It was [bigger|more lovely] than in any story.
At last they came to {far_place}. {Hero} could not [speak|stop smiling]. "{Wow}!" {he} said.

They stayed there for {numbers} hours. {Hero} took home [a stone|a shell|a feather|a picture|a
    small {treasure}] for {elder}.
"[It was a long way|My feet hurt]," said {friend}, "but I would go [again|with you anywhere]."
""",
    "magic wish": """
{Hero} rubbed an old {treasure}, and {noises}! Out came {magic}. "You have one wish," it said.
Near {spot}, {hero} helped {magic} that was stuck in a [net|tree|hole]. "[For that|As a thank
    you], you get a wish!"
{Times}, {hero} looked up and saw a shooting star. "I wish for {wish}," {he} said. In the
    morning, [it came true|there it was]!

{Hero} thought of a {colors} {toys}. {He} thought of {food}. Then {he} said, "I want {wish}!"
"Can I have {wish}?" asked {hero}. "[Are you sure|Think well]," it said. But {hero} was sure.
    {Noises}!

At first, it was [so much fun|great]. {Hero} showed it to everyone at {place}. {Friend} [could
    not believe it|was {scared}].
All morning, {hero} [laughed|played]. But by noon, {he} was {tired}. It was too [much|hard].

But then things went wrong. It [got in the way|would not stop], and {hero} could not play {game}
    with {friend}.
{Friend} went home. "[You only think of|All you want is] your wish," {fhe} said {softly}. {Hero}
    was {sad}.
That night, {hero} wanted to eat {food} with {elder}, but {he} could not [come in|sit down].
    {He} began to cry.

"I [do not want it|want things to be as before]," said {hero}. "[Please|You must] take it back!"
{He} {moved} back to {spot}. "[Please|Help]," {he} said. "I wished for the wrong thing."

The {wizard} smiled. "[What did you learn|Then what do you need]?" it asked. "[Just|Only] my
    friends," said {hero}.
"Some wishes are best as dreams," it said, and {noises}, it was all gone.

{Hero} saw {friend} by {spot2} and [ran|called] to {fhim}. "Do you want to play {game}?" {he}
    asked. "[Yes|Always]!" said {friend}.
""",
}
