"""Well-known true facts about real authors and the world, each with three wrong options. Our own wording."""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A question with its right answer and three wrong ones."""

    question: str
    answer: str
    wrong: tuple[str, str, str]


def _facts(text: str) -> tuple[Fact, ...]:
    """Parse a fact per line: question | answer | wrong | wrong | wrong."""
    lines = (tuple(part.strip() for part in line.split("|")) for line in text.strip().splitlines())
    return tuple(Fact(question, answer, (a, b, c)) for question, answer, a, b, c in lines)


REAL_AUTHORS = _facts("""
    Who wrote Hamlet? | William Shakespeare | Christopher Marlowe | Ben Jonson | John Milton
    Who wrote Pride and Prejudice? | Jane Austen | Charlotte Bronte | Mary Shelley | George Eliot
    Who wrote Frankenstein? | Mary Shelley | Bram Stoker | Jane Austen | Edgar Allan Poe
    Who wrote Dracula? | Bram Stoker | Oscar Wilde | Mary Shelley | Arthur Conan Doyle
    Who wrote War and Peace? | Leo Tolstoy | Fyodor Dostoevsky | Anton Chekhov | Ivan Turgenev
    Who wrote Crime and Punishment? | Fyodor Dostoevsky | Leo Tolstoy | Nikolai Gogol | Maxim Gorky
    Who wrote The Cherry Orchard? | Anton Chekhov | Henrik Ibsen | Leo Tolstoy | August Strindberg
    Who wrote Dead Souls? | Nikolai Gogol | Ivan Turgenev | Anton Chekhov | Alexander Pushkin
    Who wrote Don Quixote? | Miguel de Cervantes | Lope de Vega | Jorge Luis Borges | Pablo Neruda
    Who wrote The Divine Comedy? | Dante Alighieri | Giovanni Boccaccio | Francesco Petrarca | Italo Calvino
    Who wrote The Decameron? | Giovanni Boccaccio | Dante Alighieri | Umberto Eco | Carlo Goldoni
    Who wrote The Name of the Rose? | Umberto Eco | Italo Calvino | Primo Levi | Alberto Moravia
    Who wrote Faust? | Johann Wolfgang von Goethe | Friedrich Schiller | Heinrich Heine | Thomas Mann
    Who wrote The Metamorphosis? | Franz Kafka | Thomas Mann | Hermann Hesse | Stefan Zweig
    Who wrote The Magic Mountain? | Thomas Mann | Bertolt Brecht | Franz Kafka | Robert Musil
    Who wrote Siddhartha? | Hermann Hesse | Franz Kafka | Rabindranath Tagore | Heinrich Heine
    Who wrote Les Miserables? | Victor Hugo | Emile Zola | Gustave Flaubert | Alexandre Dumas
    Who wrote Madame Bovary? | Gustave Flaubert | Victor Hugo | Marcel Proust | Guy de Maupassant
    Who wrote The Three Musketeers? | Alexandre Dumas | Jules Verne | Victor Hugo | Stendhal
    Who wrote Germinal? | Emile Zola | Albert Camus | Alexandre Dumas | Voltaire
    Who wrote Candide? | Voltaire | Moliere | Denis Diderot | Jean Racine
    Who wrote The Stranger? | Albert Camus | Marcel Proust | Samuel Beckett | Voltaire
    Who wrote Around the World in Eighty Days? | Jules Verne | Mark Twain | Rudyard Kipling | Jack London
    Who wrote The Time Machine? | H. G. Wells | Jules Verne | Aldous Huxley | George Orwell
    Who wrote Brave New World? | Aldous Huxley | George Orwell | H. G. Wells | Ray Bradbury
    Who wrote Animal Farm? | George Orwell | Aldous Huxley | Graham Greene | William Golding
    Who wrote Lord of the Flies? | William Golding | George Orwell | Joseph Conrad | Graham Greene
    Who wrote Oliver Twist? | Charles Dickens | Thomas Hardy | William Thackeray | Wilkie Collins
    Who wrote Jane Eyre? | Charlotte Bronte | Emily Bronte | Jane Austen | Virginia Woolf
    Who wrote Wuthering Heights? | Emily Bronte | Charlotte Bronte | Thomas Hardy | George Eliot
    Who wrote Middlemarch? | George Eliot | Henry James | Charles Dickens | Emily Bronte
    Who wrote Mrs Dalloway? | Virginia Woolf | Katherine Mansfield | Edith Wharton | Sylvia Plath
    Who wrote Ulysses? | James Joyce | Samuel Beckett | Oscar Wilde | William Butler Yeats
    Who wrote Waiting for Godot? | Samuel Beckett | James Joyce | Harold Pinter | Albert Camus
    Who wrote Moby-Dick? | Herman Melville | Nathaniel Hawthorne | Jack London | Joseph Conrad
    Who wrote The Scarlet Letter? | Nathaniel Hawthorne | Herman Melville | Henry James | Washington Irving
    Who wrote Tom Sawyer? | Mark Twain | Jack London | Bret Harte | Walt Whitman
    Who wrote The Call of the Wild? | Jack London | Mark Twain | Ernest Hemingway | Rudyard Kipling
    Who wrote The Old Man and the Sea? | Ernest Hemingway | John Steinbeck | William Faulkner | Herman Melville
    Who wrote The Grapes of Wrath? | John Steinbeck | Ernest Hemingway | William Faulkner | Saul Bellow
""")

WORLD_FACTS = _facts("""
    What is the capital of France? | Paris | Lyon | Brussels | Geneva
    What is the capital of Japan? | Tokyo | Osaka | Kyoto | Seoul
    What is the capital of Egypt? | Cairo | Alexandria | Tripoli | Khartoum
    What is the capital of Italy? | Rome | Milan | Venice | Athens
    What is the capital of Spain? | Madrid | Barcelona | Lisbon | Seville
    What is the capital of Portugal? | Lisbon | Porto | Madrid | Seville
    What is the capital of Canada? | Ottawa | Toronto | Montreal | Vancouver
    What is the capital of Australia? | Canberra | Sydney | Melbourne | Perth
    What is the capital of Brazil? | Brasilia | Sao Paulo | Lima | Salvador
    What is the capital of Peru? | Lima | Quito | Santiago | Bogota
    What is the capital of Norway? | Oslo | Bergen | Stockholm | Helsinki
    What is the capital of Finland? | Helsinki | Oslo | Tallinn | Turku
    What is the capital of Greece? | Athens | Sparta | Rome | Sofia
    What is the capital of Kenya? | Nairobi | Mombasa | Kampala | Lagos
    What is the capital of India? | New Delhi | Mumbai | Kolkata | Chennai
    What is the capital of Turkey? | Ankara | Istanbul | Izmir | Baghdad
    Which planet is closest to the Sun? | Mercury | Venus | Mars | Neptune
    Which planet is the largest? | Jupiter | Saturn | Uranus | Earth
    Which planet is called the red planet? | Mars | Venus | Jupiter | Mercury
    Which ocean is the largest? | Pacific | Atlantic | Indian | Arctic
    Which mountain is the highest? | Mount Everest | Mont Blanc | Kilimanjaro | Mount Fuji
    Which animal is the largest? | Blue whale | Elephant | Giraffe | White shark
    Which animal has the longest neck? | Giraffe | Ostrich | Camel | Flamingo
    Which metal is liquid at room temperature? | Mercury | Iron | Copper | Silver
    Which gas do plants take from the air? | Carbon dioxide | Helium | Hydrogen | Methane
    Which element has the symbol O? | Oxygen | Gold | Osmium | Iron
    Which element has the symbol Fe? | Iron | Fluorine | Silver | Lead
    Which element has the symbol Au? | Gold | Silver | Argon | Aluminium
    How many sides has a hexagon? | Six | Five | Seven | Eight
    How many days has a week? | Seven | Six | Eight | Nine
    How many legs has a spider? | Eight | Six | Ten | Four
    How many players has a football team? | Eleven | Nine | Seven | Thirteen
    Who painted the Mona Lisa? | Leonardo da Vinci | Michelangelo | Raphael | Titian
    Who painted The Starry Night? | Vincent van Gogh | Claude Monet | Paul Cezanne | Edvard Munch
    Who painted Guernica? | Pablo Picasso | Salvador Dali | Joan Miro | Henri Matisse
    Who first walked on the Moon? | Neil Armstrong | Yuri Gagarin | John Glenn | Buzz Aldrin
    Who proposed the theory of relativity? | Albert Einstein | Isaac Newton | Niels Bohr | Max Planck
    Which language is spoken in Austria? | German | French | Italian | Hungarian
    Which language is spoken in Mexico? | Spanish | Portuguese | English | French
    In which country is the Great Pyramid of Giza? | Egypt | Mexico | Sudan | Jordan
""")
