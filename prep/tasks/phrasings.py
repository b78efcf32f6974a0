"""
How people ask how many of a letter are in a word, in twelve languages, and what the answer says around the counting.

    question   "How many {letter}'s do you see in {word}?"
    answer     intro, the word spelled out, the running count, total, <python>, check, #### N

Both placeholders stand once in a question and in an intro, {letter} first in an intro; {num} stands once in a total.
spelling_bee.py varies quotes, final mark and case. `quotes` are those of the language, beside the plain ' and ".
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    quotes: tuple[str, str]
    intro: str
    total: str
    check: str
    questions: list[str]


ENGLISH = Language(
    ("“", "”"),
    "To count the letter {letter} in {word}, I write the word out and keep a running count.",
    "The count ends at {num}. Python can confirm it:",
    "Python gets the same number.",
    [
        "How many times is the letter {letter} used in {word}?",
        "How many {letter}'s do you see in {word}?",
        "How often does the letter {letter} turn up in {word}?",
        "Can you go through {word} and count each {letter}?",
        "How many of the letters in {word} are {letter}?",
        "Please work out how often {letter} is needed to spell {word}.",
        "If I write {word} on a card, how many times do I write {letter}?",
        "{word}: how many {letter}'s?",
        "I'd like to know how many {letter}'s the word {word} has.",
        "Does {word} contain the letter {letter}, and if so, how many times?",
        "Take the word {word}. How many of its letters are {letter}?",
        "How many letter tiles with {letter} do I need to lay out {word}?",
        "I am typing {word}. How many times do I press {letter}?",
        "My daughter asks how many {letter}'s {word} has. Can you count them?",
        "Look closely at {word}. How many times is {letter} in there?",
        "Going through {word} letter by letter, how many times do we meet {letter}?",
        "A quick one: how many {letter}'s in {word}?",
        "Which number do you get when you count {letter} in {word}?",
        "When {word} is spelled aloud, how often do you say {letter}?",
        "Find every {letter} in {word} and say how many you found.",
        "The word is {word}, the letter is {letter}. How many?",
        "Suppose I cross out every {letter} in {word}. How many letters did I cross out?",
        "We are playing hangman, the word is {word} and I guess {letter}. How many gaps get filled?",
        "Spell {word} and keep a tally of {letter}. Where does the tally end?",
    ],
)
SPANISH = Language(
    ("«", "»"),
    "Para contar la letra {letter} en {word}, escribo la palabra letra por letra y llevo la cuenta.",
    "La cuenta termina en {num}. Lo compruebo con Python:",
    "Python da el mismo resultado.",
    [
        "¿Cuántas veces aparece la letra {letter} en {word}?",
        "¿Cuántas {letter} tiene la palabra {word}?",
        "Cuenta las veces que sale {letter} en {word}.",
        "En la palabra {word}, ¿cuántas letras son {letter}?",
        "Si deletreo {word}, ¿cuántas veces digo {letter}?",
        "¿Me dices cuántas veces se escribe {letter} en {word}?",
    ],
)
FRENCH = Language(
    ("«\u00a0", "\u00a0»"),
    "Pour compter la lettre {letter} dans {word}, j'épelle le mot et je tiens le compte.",
    "Le compte s'arrête à {num}. Je vérifie avec Python\u00a0:",
    "Python trouve le même nombre.",
    [
        "Combien de fois la lettre {letter} apparaît-elle dans {word} ?",
        "Combien y a-t-il de {letter} dans le mot {word} ?",
        "Compte les {letter} du mot {word}.",
        "Dans {word}, combien de lettres sont des {letter} ?",
        "Quand j'épelle {word}, combien de fois est-ce que je dis {letter} ?",
        "Peux-tu me dire combien de fois on écrit {letter} dans {word} ?",
    ],
)
GERMAN = Language(
    ("„", "“"),
    "Um {letter} in {word} zu zählen, buchstabiere ich das Wort und zähle mit.",
    "Der Zähler steht am Ende bei {num}. Ich prüfe es mit Python:",
    "Python kommt auf dieselbe Zahl.",
    [
        "Wie oft kommt der Buchstabe {letter} in {word} vor?",
        "Wie viele {letter} stecken im Wort {word}?",
        "Zähle bitte, wie oft {letter} in {word} steht.",
        "Ich buchstabiere {word}: Wie oft sage ich {letter}?",
        "Wie viele der Buchstaben in {word} sind {letter}?",
        "Kannst du nachzählen, wie oft man für {word} ein {letter} braucht?",
    ],
)
PORTUGUESE = Language(
    ("“", "”"),
    "Para contar a letra {letter} em {word}, soletro a palavra e vou somando.",
    "A contagem termina em {num}. Confirmo com Python:",
    "O Python chega ao mesmo número.",
    [
        "Quantas vezes a letra {letter} aparece em {word}?",
        "Quantas letras {letter} há na palavra {word}?",
        "Conte quantas vezes se escreve {letter} em {word}.",
        "Ao soletrar {word}, quantas vezes eu digo {letter}?",
        "Na palavra {word}, quantas letras são {letter}?",
    ],
)
ITALIAN = Language(
    ("«", "»"),
    "Per contare la lettera {letter} in {word}, scrivo la parola lettera per lettera e tengo il conto.",
    "Il conto finisce a {num}. Verifico con Python:",
    "Python dà lo stesso numero.",
    [
        "Quante volte compare la lettera {letter} in {word}?",
        "Quante {letter} ci sono nella parola {word}?",
        "Conta quante volte si scrive {letter} in {word}.",
        "Se leggo {word} lettera per lettera, quante volte incontro {letter}?",
        "Nella parola {word}, quante lettere sono {letter}?",
    ],
)
DUTCH = Language(
    ("‘", "’"),
    "Om de letter {letter} in {word} te tellen, spel ik het woord en tel ik mee.",
    "De teller eindigt op {num}. Ik controleer het met Python:",
    "Python komt op hetzelfde getal uit.",
    [
        "Hoe vaak komt de letter {letter} voor in {word}?",
        "Hoe vaak schrijf je {letter} in het woord {word}?",
        "Tel hoe vaak {letter} in {word} staat.",
        "Als ik {word} spel, hoe vaak zeg ik dan {letter}?",
    ],
)
RUSSIAN = Language(
    ("«", "»"),
    "Чтобы посчитать букву {letter} в слове {word}, запишу слово по буквам и буду вести счёт.",
    "Счёт остановился на числе {num}. Проверю в Python:",
    "Python даёт то же число.",
    [
        "Сколько раз буква {letter} встречается в слове {word}?",
        "Сколько букв {letter} в слове {word}?",
        "Посчитай, сколько раз в слове {word} пишется {letter}.",
        "Если произнести {word} по буквам, сколько раз прозвучит {letter}?",
    ],
)
CHINESE = Language(
    ("“", "”"),
    "要数 {letter} 在 {word} 中出现的次数，我把单词逐个字母写出来，边写边数。",
    "最后数到 {num}。用 Python 验证一下：",
    "Python 的结果相同。",
    [
        "字母 {letter} 在 {word} 里出现了几次？",
        "单词 {word} 里有几个 {letter}？",
        "请数一数 {word} 这个词中有多少个 {letter}。",
        "拼写 {word} 时，要写几次 {letter}？",
        "{word} 的字母当中，有几个是 {letter}？",
    ],
)
JAPANESE = Language(
    ("「", "」"),
    "{letter} が {word} に何回出てくるか、一文字ずつ書き出して数えます。",
    "数えた結果は {num} です。Python で確かめます：",
    "Python でも同じ数になりました。",
    [
        "{word} に {letter} は何回出てきますか？",
        "{word} という単語に文字 {letter} はいくつありますか？",
        "{word} の中の {letter} の数を数えてください。",
        "{word} のつづりには {letter} を何回使いますか？",
        "文字 {letter} は {word} にいくつ含まれていますか？",
    ],
)
HINDI = Language(
    ("“", "”"),
    "{letter} को {word} में गिनने के लिए शब्द का एक-एक अक्षर देखते हैं और गिनती बढ़ाते जाते हैं।",
    "गिनती {num} पर रुकती है। Python से जाँच:",
    "Python का उत्तर भी वही है।",
    [
        "{word} शब्द में {letter} अक्षर कितनी बार आता है?",
        "शब्द {word} में कितने {letter} हैं?",
        "गिनकर बताइए कि {word} में {letter} कितनी बार आता है।",
        "{word} लिखते समय {letter} कितनी बार लिखना पड़ता है?",
    ],
)
KOREAN = Language(
    ("‘", "’"),
    "{letter} 글자가 {word}에 몇 번 나오는지 한 글자씩 적으며 세어 보겠습니다.",
    "세어 보니 {num}번입니다. Python으로 확인합니다:",
    "Python의 결과도 같습니다.",
    [
        "{word}에 {letter} 글자가 몇 번 나오나요?",
        "단어 {word}에는 {letter} 글자가 몇 개 있나요?",
        "{word}의 철자에서 {letter} 글자를 세어 주세요.",
        "{word} 철자를 쓸 때 {letter} 글자를 몇 번 쓰나요?",
    ],
)
LANGUAGES = [ENGLISH, SPANISH, FRENCH, GERMAN, PORTUGUESE, ITALIAN, DUTCH, RUSSIAN, CHINESE, JAPANESE, HINDI, KOREAN]
