"""The frame of every generated story: openings, asides, endings and morals.

A block holds beats, parted by empty lines; a story draws one line of each beat. A beat that starts
with ``?`` is left out half of the time, and an indented line continues the one above it. ``{slot}``
is a value of this story's cast or else a fresh draw from the word list of that name (``{Slot}``:
capitalised), and ``[a|b]`` draws one of the alternatives.
"""

from __future__ import annotations

OPENING = """
[Once upon a time|Once|Long ago|One day], there was {a_hero}. {He} [lived near|had a home by]
    {place}.
{Hero} was {a_hero_short} who [lived near|loved|came every day to] {place}.
There once was {a_hero}. {He} was [very|always|often] {traits}.
[In a small house|In a cosy home|Not far from here,] near {place} lived {a_hero}.
{Times}, {hero} and {friend} [went|walked|ran] to {place}. It was a {weathers} day.
{Hero} and {friend} were [good|best|old] friends. They [liked|loved] to play {game}
    [together|all day].
{Times}, {a_hero} [woke up early|looked out of the window|put on {his} {look} hat]. It was
    {weathers}.
{Hero} had a {look} {color} {toy}. It was [a gift from {elder}|{his} favorite thing in the world].

?{Hero} was {traits} and {traits}, and {he} [loved|liked] [{food}|to play {game}|{elder}'s
    stories].
?{His} best friend was {a_friend}. [{Fhe} was very {traits}.|They met at {place} every day.]
?{Hero} lived with {elder}. Every [morning|evening], they [ate {food}|sang a song] together.
?{He} had a {color} {toy} and {numbers} {look} [stones|shells|buttons], but {he} [wanted|hoped
    for] more.
"""

ASIDES = """
They saw {sky} [above|over|behind] {spot}. "{Wow}!" said {friend}.
The sun was [warm|hot|bright|low], and a {color} {creature} [sat on|slept near|hopped by] {spot}.
On the way, they met {elder}, who gave them {numbers} {fruit_plural} [for the trip|to share].
{Hero} [counted|saw] {numbers} {color} birds near {spot2}. They sang [softly|gently|all day].
"Are you {hungry}?" asked {friend}. "Yes, I want some {foods}," {hero} said.
The wind blew [softly|gently|slowly] and the [leaves|flowers|trees] near {spot3} moved.
{Friend} told a joke about a {creatures} and a {fruits}. {Hero} [laughed|giggled|did not get it].
A {creatures} looked at them from {spot2}. Then it [ran away|went back to sleep|made a funny
    noise].
They sat [down by|next to] {spot} and ate some {foods}. It tasted [very good|sweet|like summer].
[It smelled of {foods} and {foods}|There was a smell of {foods}], and {hero} felt {glad}.
"""

ENDING = """
{Hero} and {friend} [walked|went] home. They were {tired} but {glad}.
That night, {hero} [lay in bed|looked at the moon] and [smiled|thought about {place}]. {He} was
    {glad}.
From that day on, {hero} and {friend} [met at {place} every day|played {game} every week].
Then they all [sat down and ate|shared] some {foods}. It was [a good day|the best day of all].
{Elder} [hugged|kissed] {him} and said, "I am [so|very] proud of you, {hero}."
"What a day!" said {friend}. "[Can we|Let us] come back to {place} [tomorrow|soon]?" {Hero} said
    yes.
{Hero} told {elder} [all about it|the whole story]. {Elder} laughed and gave {him} some {foods}.
And so {hero} went to sleep, {glad} and {tired}. [The end.|Good night, {hero}!]

?{Hero} learned that it is [good|best|always good] to {morals}.
?And {he} never forgot [that day|what {elder} had said|to {morals}].
?Now {hero} knows: [when you are {sad}, {morals}|it is never too late to {morals}].
"""
