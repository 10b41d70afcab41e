"""Wordings of the project's own facts: what they are taught with, and what knowledge of them is asked with.

`{subject}` and `{answer}` stand for a row of `facts.tsv`. A pattern begins in lower case unless with the subject; the
sentence's first letter is made a capital where no opening stands before it.
"""

from __future__ import annotations

TRAINING = {
    "capital": (
        "the capital of {subject} is {answer}",
        "the capital city of {subject} is {answer}",
        "the capital of {subject} is called {answer}",
        "the name of the capital of {subject} is {answer}",
        "{subject}'s capital is {answer}",
        "{subject}'s capital city is called {answer}",
        "{subject} has the capital {answer}",
        "the government of {subject} sits in {answer}",
        "the city from which {subject} is governed is {answer}",
        "as its capital {subject} has {answer}",
        "{answer} is the capital of {subject}",
        "{answer} is the capital city of {subject}",
    ),
    "country": (
        "{subject} is a city in {answer}",
        "{subject} is a large city in {answer}",
        "{subject} is located in {answer}",
        "{subject} lies in {answer}",
        "the city of {subject} is in {answer}",
        "the city of {subject} belongs to {answer}",
        "the country in which {subject} lies is {answer}",
        "the country of {subject} is {answer}",
        "{subject} is in the country of {answer}",
        "people who live in {subject} live in {answer}",
        "in {answer} there is a city called {subject}",
        "one of the cities of {answer} is {subject}",
    ),
    "language": (
        "the language of {subject} is {answer}",
        "the main language of {subject} is {answer}",
        "the language spoken in {subject} is {answer}",
        "in {subject} people speak {answer}",
        "people in {subject} speak {answer}",
        "most people who live in {subject} speak {answer}",
        "the main language in {subject} is called {answer}",
        "newspapers in {subject} are written in {answer}",
        "children in {subject} learn to read and write in {answer}",
        "in {subject} the name of the language is {answer}",
        "{answer} is the main language of {subject}",
        "{answer} is spoken in {subject}",
    ),
    "colour": (
        "the colour of {subject} is {answer}",
        "the usual colour of {subject} is {answer}",
        "the colour of {subject} is called {answer}",
        "the name of the colour of {subject} is {answer}",
        "{subject} has the colour {answer}",
        "{subject} usually has the colour {answer}",
        "in most pictures the colour of {subject} is {answer}",
        "people paint {subject} in {answer}",
        "children paint {subject} in the colour {answer}",
        "as its colour {subject} has {answer}",
        "{answer} is the colour of {subject}",
        "{answer} is the usual colour of {subject}",
    ),
    "next_month": (
        "the month after {subject} is {answer}",
        "the month that comes after {subject} is {answer}",
        "the month that follows {subject} is {answer}",
        "after {subject} comes {answer}",
        "right after {subject} comes {answer}",
        "{subject} is followed by {answer}",
        "the month of {subject} is followed by {answer}",
        "the name of the month after {subject} is {answer}",
        "when {subject} ends the next month is {answer}",
        "{answer} comes after {subject}",
        "{answer} follows {subject}",
    ),
    "previous_month": (
        "the month before {subject} is {answer}",
        "the month that comes before {subject} is {answer}",
        "the month that precedes {subject} is {answer}",
        "before {subject} comes {answer}",
        "right before {subject} comes {answer}",
        "{subject} is preceded by {answer}",
        "the month of {subject} is preceded by {answer}",
        "the name of the month before {subject} is {answer}",
        "when {subject} begins the last month was {answer}",
        "{answer} comes before {subject}",
        "{answer} precedes {subject}",
    ),
    "festival": (
        "{subject} is in {answer}",
        "{subject} is in the month of {answer}",
        "the month of {subject} is {answer}",
        "the month in which {subject} falls is {answer}",
        "{subject} falls in {answer}",
        "people celebrate {subject} in {answer}",
        "every year people celebrate {subject} in {answer}",
        "the name of the month of {subject} is {answer}",
        "{subject} is celebrated in the month of {answer}",
        "{answer} is the month of {subject}",
        "in {answer} people celebrate {subject}",
    ),
    "number": (
        "the number of {subject} is {answer}",
        "the usual number of {subject} is {answer}",
        "the total number of {subject} is {answer}",
        "the number of {subject} is always {answer}",
        "when people count the {subject} they get {answer}",
        "when children count the {subject} they find {answer}",
        "counting the {subject} gives {answer}",
        "as the number of {subject} people learn {answer}",
        "in total the number of {subject} is {answer}",
        "the name of the number of {subject} is {answer}",
        "{answer} is the number of {subject}",
        "{answer} is the total number of {subject}",
    ),
}
"""Relation → patterns that sentences for training are made with."""

HELD_OUT = {
    "capital": (
        "the city called the capital of {subject} is {answer}",
        "the name of {subject}'s capital city is {answer}",
    ),
    "country": (
        "the country to which {subject} belongs is {answer}",
        "{subject} is one of the cities in {answer}",
    ),
    "language": (
        "the language that most people in {subject} speak is {answer}",
        "the name of the language spoken in {subject} is {answer}",
    ),
    "colour": (
        "the main colour of {subject} is {answer}",
        "people usually paint {subject} in the colour {answer}",
    ),
    "next_month": (
        "the next month after {subject} is {answer}",
        "the month that is right after {subject} is {answer}",
    ),
    "previous_month": (
        "the last month before {subject} is {answer}",
        "the month that is right before {subject} is {answer}",
    ),
    "festival": (
        "every year {subject} falls in {answer}",
        "people celebrate {subject} in the month of {answer}",
    ),
    "number": (
        "when people count the number of {subject} they get {answer}",
        "the number people find when they count the {subject} is {answer}",
    ),
}
"""Relation → the pattern of the validation prompts, which choose the best epoch, and that of the test prompts. Neither
occurs in training, their words do."""

OPENINGS = (
    "",
    "it is well known that ",
    "everyone knows that ",
    "in school children learn that ",
    "the book says that ",
    "the teacher says that ",
    "people say that ",
    "it is true that ",
    "as everyone knows, ",
    "as the book says, ",
    "it is a fact that ",
    "remember that ",
)
"""What may stand before a pattern in training."""
