"""Number words below a million in Spanish, English and German."""

ENGLISH = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
ENGLISH_TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

SPANISH = [
    "cero",
    "uno",
    "dos",
    "tres",
    "cuatro",
    "cinco",
    "seis",
    "siete",
    "ocho",
    "nueve",
    "diez",
    "once",
    "doce",
    "trece",
    "catorce",
    "quince",
    "dieciséis",
    "diecisiete",
    "dieciocho",
    "diecinueve",
    "veinte",
    "veintiuno",
    "veintidós",
    "veintitrés",
    "veinticuatro",
    "veinticinco",
    "veintiséis",
    "veintisiete",
    "veintiocho",
    "veintinueve",
]
SPANISH_TENS = ["-", "-", "-", "treinta", "cuarenta", "cincuenta", "sesenta", "setenta", "ochenta", "noventa"]
SPANISH_HUNDREDS = [
    "-",
    "ciento",
    "doscientos",
    "trescientos",
    "cuatrocientos",
    "quinientos",
    "seiscientos",
    "setecientos",
    "ochocientos",
    "novecientos",
]

GERMAN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"]
GERMAN_TEENS = {
    13: "dreizehn",
    14: "vierzehn",
    15: "fünfzehn",
    16: "sechzehn",
    17: "siebzehn",
    18: "achtzehn",
    19: "neunzehn",
}
GERMAN_TENS = ["-", "-", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]


def english(number: int) -> str:
    """`342` -> three hundred forty-two."""
    if number < 20:
        return ENGLISH[number]
    if number < 100:
        return ENGLISH_TENS[number // 10] + (f"-{ENGLISH[number % 10]}" if number % 10 else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = number % size
    return f"{english(number // size)} {name}" + (f" {english(rest)}" if rest else "")


def spanish(number: int) -> str:
    """`342` -> trescientos cuarenta y dos."""
    if number < 30:
        return SPANISH[number]
    if number < 100:
        return SPANISH_TENS[number // 10] + (f" y {SPANISH[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = number % 100
        return (
            f"{SPANISH_HUNDREDS[number // 100]} {spanish(rest)}"
            if rest
            else "cien"
            if number == 100
            else SPANISH_HUNDREDS[number // 100]
        )
    thousands, rest = divmod(number, 1000)
    head = "mil" if thousands == 1 else f"{before_mil(thousands)} mil"
    return head + (f" {spanish(rest)}" if rest else "")


def before_mil(number: int) -> str:
    """Before `mil`, uno loses its o: veintiún mil, treinta y un mil."""
    words = spanish(number)
    if words.endswith("veintiuno"):
        return words.removesuffix("veintiuno") + "veintiún"
    return words.removesuffix("o") if words.endswith("uno") else words


def german(number: int) -> str:
    """`342` -> dreihundertzweiundvierzig."""
    if number < 13:
        return GERMAN[number]
    if number < 20:
        return GERMAN_TEENS[number]
    if number < 100:
        tens, ones = GERMAN_TENS[number // 10], number % 10
        return f"{joined(ones)}und{tens}" if ones else tens
    size, name = (100, "hundert") if number < 1000 else (1000, "tausend")
    rest = number % size
    return joined(number // size) + name + (german(rest) if rest else "")


def joined(number: int) -> str:
    """Before another part of a word, eins loses its s: einundzwanzig, einhundert."""
    words = german(number)
    return words.removesuffix("s") if words.endswith("eins") else words


LANGUAGES = {"es": spanish, "en": english, "de": german}


def spell(number: int, language: str) -> str:
    """A number from 0 to 999,999 in words."""
    return LANGUAGES[language](number)
