"""Plots of the story generator that happen at home and among friends.

The format is that of story_frames.py.
"""

from __future__ import annotations

PLOTS = {
    "lost toy": """
{Times}, {hero} could not find {his} {color} {toy}. {He} [looked|searched] [under the bed|in the
    box|behind the door], but it was not there.
{Hero} [took|carried] {his} {look} {toy} to {place}. {He} played {game}, and then the {toy} was
    gone.
"Where is my {toy}?" [cried|asked] {hero}. {He} [was {sad}|felt {sad}].

{Friend} saw that {hero} was {sad}. "[Do not cry|Do not worry]," {fhe} said. "[We will find it|I
    will help you]."
{Hero} asked {elder}, "Did you see my {toy}?" {Elder} shook {ehis} head. "[Where did you
    play|Where were you] last?"
{Friend} came to help. "What does it look like?" {fhe} asked. "It is {color} and {looks}," said
    {hero}.

First they [looked|searched] near {spot}. They found {found}, but no {toy}.
They went to {spot} and looked [up and down|left and right]. There was only a {creatures}.
They asked a {creature} by {spot}. [The {creature} did not know.|The {creature} only blinked.]

Then they [looked|went] [behind|under|near] {spot2}. They found a {treasure}, but not the {toy}.
Next, they tried {spot2}. "Is it here?" asked {hero}. "No, [just|only] a {looks} {fruits}," said
    {friend}.
After that, {friend} [climbed|looked] up by {spot2}. "I can see [far|a lot], but I can not see
    your {toy}," {fhe} said.

At last, {hero} saw something {color} near {spot3}. It was the {toy}! A {creatures} was
    [sleeping on|playing with] it.
Then {friend} [shouted|called], "{Wow}! It is here, by {spot3}!" The {toy} was [a bit wet|full
    of sand|safe and dry].
A {creature} had carried it to {spot3}. "You can have it back," said {elder}. "The {creature}
    only wanted to play."

{Hero} [hugged|held] the {toy} and said, "Thank you, {friend}!" {He} was {glad}.
"I will [be careful|keep it in my bag] now," said {hero}. {Friend} [smiled|nodded].
""",
    "new skill": """
{Hero} wanted to {skill}. {Friend} could do it [very well|with ease], and it looked [like fun|so
    easy].
{Times}, {hero} saw {elder} {skilling}. "I want to {skill} too!" {he} said.
All the others could {skill}, but {hero} could not. {He} [felt|was] {sad}.

{Hero} tried, but {he} [fell down|got it wrong|had to stop]. "[Ouch|Oh no]!" {he} said {softly}.
The first time, it did not work at all. The second time, it was [even worse|a little better].
{He} tried {numbers} times, and {numbers} times it went wrong. "I [give up|can not do it]," {he}
    said {softly}.

"[It takes time|Nobody can do it the first day]," said {elder}. "[Try again|Go slowly], and I
    will [watch|hold your hand]."
{Friend} said, "When I was small, I could not {skill} [at all|either]. {Elder} [showed|helped]
    me."
{Elder} sat down with {him} and showed {him} [how|each step]. "[Look up|Take a deep breath], and
    do not be {scared}."

Every day, {hero} went to {spot} to try. It [rained|was {weathers}] on {days}, but {he} did not
    stop.
[One|A] week went by. {Hero} [worked hard|did a little more each day], and {friend}
    [clapped|cheered].
So {he} went to {place} each [morning|evening]. A {creature} came to watch {him}. It [seemed to
    laugh|sat very still].

Then, [one day|on {days}], {hero} {skilled}! "{Wow}, I did it!" {he} [shouted|called] {loudly}.
At last it happened. In front of {friend} and {elder}, {hero} {skilled}. Everyone
    [clapped|cheered].
And then {he} did it. {Hero} {skilled}, and {he} did it {numbers} more times before
    [lunch|dinner|bed time].

Soon a little {creature} came and asked, "[Can|Will] you teach me?" "[Yes|Of course]," said
    {hero}, "but it takes time."
{Hero} was {glad}. "[What|Now what] should I learn next?" {he} asked.
""",
    "noise at night": """
One night, {hero} heard a noise. {noise}! {He} pulled {his} blanket up to {his} nose.
It was late, and {hero} was {tired}. Then, from [the attic|the hall|outside], came a sound.
    "{noise}!"
{Hero} and {friend} slept in a tent near {spot}. "Did you hear that?" [asked|whispered]
    {friend}. {noise}!

"[Is it a monster|Who is there]?" {he} said {softly}. No one said a word. {noise}!
{He} was {scared}. {He} thought of a monster with {numbers} {color} eyes and {size} teeth.
"It is a [giant|ghost|dragon]," said {hero}. "It has a {size} {color} tail, I am sure."

{He} called for {elder}. "[There is|I hear] a monster!" {Elder} came with a [lamp|candle].
{Hero} took {his} {color} {toy} and a lamp. "I will [be brave|go and look]," {he} said.
"[We can|Let us] look together," said {friend}. "Two are [braver|better] than one."

They went [step by step|on tip toe] past {spot}, past {spot2}, to the [dark|door].
The floor was cold. The [moon|lamp] made long shadows. {noise}, went the noise again. Their
    hearts beat fast.
They opened the door, just a bit. Something moved! {Hero} [jumped|held {his} breath].

It was only {cause}! {Hero} began to laugh.
And what did they see? No monster. It was {cause}. "[Is that all|Was that you]?" laughed {hero}.
Then the light fell on it. "It is [just|only] {cause}!" said {hero}.

{Elder} made some {food}, and they [all laughed|sat by the fire]. "Things look [big|bad] in the
    dark," {ehe} said.
Now, when {hero} hears {noise}, {he} [smiles|says, "Good night, monster!"] and goes back to sleep.
""",
    "honesty": """
{Hero} played {game} in the house. {Elder} had said not to. Then {noises}! {Elder}'s {looks}
    {color} [vase|cup|plate] was in {numbers} pieces.
{Elder} baked {food} for the [fair|party]. "Do not eat any," {ehe} said. But it smelled so good
    that {hero} ate [it all|half of it].
{Hero} took {friend}'s {color} {toy} without asking. {He} played with it near {spot}, and [it
    broke|a wheel came off].

{Hero} was {scared}. {He} hid [it|what was left] behind {spot2} and went to bed early.
"[What shall I do|Oh no]," thought {hero}. {He} looked left and right. No one had seen {him}.

"Who did this?" asked {elder}. "The {creature} did it," said {hero}, and {his} face grew
    [red|hot].
"[Do you know|Have you seen] what happened?" asked {friend}. "No," said {hero}. It was not true.

The poor {creature} had to [stay outside|go without dinner]. It looked at {hero} with {size} eyes.
That night, {hero} could not sleep. {His} tummy felt [as heavy as a stone|bad]. The moon looked
    in at {him}.
{Hero} did not want {food}. {He} did not want to play {game}. {He} felt {sad} all day.

At last, {he} [went|ran] to {elder} and said, "It was me. I [told a lie|was not honest]. I am
    very sorry."
In the morning, {hero} told the truth. It was hard, and {he} [cried|spoke {softly}].

{Elder} was quiet. Then {ehe} said, "[I am sad about it|It was wrong], but I am [glad|happy]
    that you told [me|the truth]."
"Thank you for telling [me|us]," said {elder}. "[Now|Tomorrow] you will {job} to make it right."

So {hero} helped {elder} [{job}|clean up] and gave the {creature} [a hug|some {foods}]. {He}
    felt [light|better] again.
They [fixed it with glue|made a new one], and {hero} said sorry to the {creature} too.
""",
    "cooking": """
{Elder} was [sick|in bed], so {hero} and {friend} wanted to make {food} for {ehim}.
It was {elder}'s birthday. "Let us make {food}," said {hero}. "[{Ehe} loves it|It is a surprise]."
{Hero} was {hungry}. "I will cook {food} [myself|all alone]," {he} said. {Friend} came to help.

They took {numbers} {fruit_plural}, a cup of [milk|sugar|flour] and a {size} spoon.
{Friend} read [the book|the words]: "Take {numbers} {fruit_plural} and {numbers} eggs." "[Easy|I
    can do that]," said {hero}.
First they washed their hands. Then they [cut|mixed] the {fruit_plural}, and {hero}
    [stirred|sang].

{Hero} put in salt and not sugar. {Friend} took a bite. "[Yuck|Oh no]!" {fhe} said.
Then, {noises}! The bowl [fell down|turned over]. There was flour on the [floor|wall|cat], and
    {hero} was white from head to toe.
It began to smoke. {noises}! It was [black|burned] on one side. "[Oh dear|Our poor {food}],"
    said {friend} {softly}.

They looked at each other and [laughed|wanted to cry]. "[Let us try again|One more time]," said
    {hero}.
"What a mess!" said {friend}. So they had to {job} and start again.
They asked {neighbor} next door for [help|more eggs]. "[Slowly|Read it twice]," {nhe} said.
    "That is the trick."

This time, it smelled [good|of summer]. It came out [golden|warm and soft].
It did not look [so good|like the picture], but it tasted [sweet|fine]. They put {numbers}
    {fruit_plural} on top.

They took it to {elder} on a {color} plate. "For me?" said {elder}. "{Wow}!" {Ehe} ate [it
    all|every bit].
{Elder} took a bite. {Ehe} closed {ehis} eyes. "That is the best {food} in the world," {ehe} said.
""",
    "helping out": """
{Times}, {elder} had too much to do. {Ehe} had to {job}, {job2} and {job3}.
"I am so {tired}," said {elder}. "[Who can help me|There is so much to do]." {Hero} wanted to
    [go and play|play {game}] with {friend}.
{Elder} asked {hero} to {job}. "[I do not want to|Not now]," said {hero}. "I want to play {game}."

But {hero} saw {elder}'s face. {Ehe} looked {sad}. "[I will do it|Let me help]," said {hero}.
{Friend} said, "If we do it together, [it will be quick|we can play sooner]." So they
    [began|went to work].
{Hero} [went out|ran away] to {spot}. But it was no fun. {He} thought of {elder} and [went|came]
    back.

First, they had to {job2}. It was [hard|hot] work. {Friend} sang about a {color} {creature}, and
    it went [fast|better].
{Hero} did the [top|left] half, and {friend} did the [bottom|right] half. A {creature} watched
    from {spot2}.
They made a game of it: who could {job2} without [a sound|a laugh|one word]?

Then {hero} had an idea. {He} took [a rope|a big box|the wagon] and [pulled|carried] {numbers}
    at a time.
It took [all morning|{numbers} hours]. {hero}'s hands were [dirty|red], and {his} [hat|nose] was
    full of dust.
At the bottom of it all, they found {elder}'s lost {treasure}! "{Wow}," said {friend}.

When {elder} came back, everything was done. {Ehe} could not [believe it|speak].
"Who did all this?" asked {elder}. "[We did|It was us]!" they said {loudly}.

{Elder} made {food} for all of them, and in the evening, {ehe} [told a story about|took them to]
    {far_place}.
{Elder} gave them [a big hug|{numbers} coins]. "Now I have time to play {game} too," {ehe} said.
""",
    "sharing": """
{Elder} gave {hero} {numbers} {fruit_plural} and a [plate|bowl] of {food}. "[These are|All this
    is] for you," {ehe} said.
{Hero} got a new {color} {toy} for {his} birthday. It was {looks} and {looks}.
{Times}, {hero} took some {food} to {place}. It smelled [very good|sweet].

{Friend} asked, "[Can|May] I have [some|a turn], please?" "No!" said {hero}. "It is [mine|all
    mine]!"
{Friend} came by and looked at it. {Fhe} was {hungry}. But {hero} turned away and hid it
    [behind|near] {spot}.
"Will you share with me?" asked {friend}. {Hero} [shook {his} head|said no]. {He} wanted it all.

{Friend} was {sad}. {Fhe} went to {spot2} and sat there alone.
So {friend} went home. {Hero} sat by {spot} [alone|with no one to talk to]. It was not [so
    good|so much fun] now.
{Friend} did not say a word. {Fhe} [looked down|walked away] {softly}.

{Hero} wanted to play {game}, but {he} had no one to play with. {He} felt {sad}.
Then {hero} [dropped it|got a tummy ache]. "[Oh no|Oh dear]," {he} said {softly}. "[I was|I have
    been] mean."
{Elder} saw {him} and asked, "Why are you {sad}?" {Hero} told {ehim} [everything|what had
    happened].

"A thing is twice as good when you share it," said {elder}. {Hero} [thought|nodded].
"What [can I do|should I do] now?" asked {hero}. "[You know|Your heart knows]," said {elder}.

{Hero} {moved} to {spot2}. "I am sorry, {friend}," {he} said. "Here, [take half|this is for you]."
So {he} [found|went to] {friend} and said sorry. "Let us [share|take turns]," {he} said {softly}.
{He} cut the {fruit} in two and gave the [big|best] half to {friend}.

{Friend} smiled. "[Thank you|I am not angry]," {fhe} said. Then they played {game} until dark.
They sat by {spot} and laughed. Now it was [more fun|sweeter] than before.
""",
    "new friend": """
A new family came to live near {place}. They had {a_friend}. {Fhe} stood [alone|all alone] by
    {spot}.
{Times}, {hero} saw {a_friend} by {spot}. {Fhe} did not [talk|play]. {Fhe} only looked at {fhis}
    shoes.
{Hero} had no one to play with. All {he} had was a {color} {toy}. Then {he} saw {a_friend} near
    {spot}.

"Hello," said {hero}. "[I am {hero}|What is your name]?" The other one [hid behind {spot2}|said
    nothing].
{Hero} wanted to say hello, but {he} was [shy|{scared}] too. {He} [walked past|went by]
    {numbers} times.
Some of the others [laughed|did not want to play]. "{Fhe} talks funny," they said. {Hero} did
    not like that.

{Hero} told {elder}. "[Maybe|I think] {fhe} is shy," said {elder}. "[Bring|Take] {fhim} some
    {food}."
So {hero} rolled the {toy} over to {fhim}. It stopped at {fhis} feet. {Fhe} rolled it back.
{Hero} sat down next to {fhim} and [began to draw|took out {his} {toy}]. They sat like that for
    a long time.

"I am {friend}," {fhe} said {softly}. "I [like your {toy}|do not know anyone here]."
    "[Now|Well,] you know me," said {hero}.
Then {friend} smiled for the first time. "Do you [know how to play|like] {game}?" {fhe} asked.
It turned out that {friend} [could {skill}|knew {numbers} songs about a {creature}]. "Can you
    show me?" asked {hero}.

They played {game} until the sun went down. {Friend} [won|laughed] {numbers} times.
They shared {food} and climbed up to see {sky}. It was [as if|like] they had always been friends.

The next day, {friend} was waiting by {spot}. {Hero} {moved} to meet {fhim}.
Now when someone new comes to {place}, {hero} and {friend} [go and say hello|take them some
    {foods}].
""",
}
