"""A database in the format of WordNet 3.0 (wndb(5WN)), of a few nouns."""

from pathlib import Path

# offset: words, offset of what it is a kind of, pointer, gloss. dog has another, rarer meaning; Rex is an instance.
SYNSETS: dict[str, tuple[list[str], str, str, str]] = {
    "00000001": (["entity"], "", "@", "that which is"),
    "00000010": (["animal", "beast"], "00000001", "@", "a living thing that moves"),
    "00000011": (["carnivore"], "00000010", "@", "an animal that eats others"),
    "00000012": (["dog", "domestic_dog"], "00000011", "@", 'a common pet; "it barks"'),
    "00000013": (["poodle"], "00000012", "@", "a dog with curls"),
    "00000014": (["cat"], "00000011", "@", "a pet that purrs"),
    "00000015": (["perch"], "00000010", "@", "a fish"),
    "00000016": (["Rex"], "00000012", "@i", "a dog of the police"),
    "00000020": (["artifact"], "00000001", "@", "something that was made"),
    "00000021": (["car", "motor_car"], "00000020", "@", "four wheels"),
    "00000022": (["perch"], "00000020", "@", "a seat for birds"),
    "00000023": (["lorry"], "00000020", "@", "carries loads"),
    "00000024": (["dog", "firedog"], "00000020", "@", "holds logs"),
}
LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n  2 | a bar and words\n"


def write_wordnet(folder: Path, synsets: dict[str, tuple[list[str], str, str, str]] = SYNSETS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data, index = [LICENCE], [LICENCE]
    senses: dict[str, list[str]] = {}
    for offset, (words, above, pointer, gloss) in synsets.items():
        named = " ".join(f"{word} 0" for word in words)
        pointers = f"002 ~ 00000099 n 0000 {pointer} {above} n 0000" if above else "000"
        data.append(f"{offset} 05 n {len(words):02x} {named} {pointers} | {gloss}  \n")
        for word in words:
            senses.setdefault(word.lower(), []).append(offset)
    for word, offsets in sorted(senses.items()):
        index.append(f"{word} n {len(offsets)} 2 @ ~ {len(offsets)} 1 {' '.join(offsets)}  \n")
    (folder / "data.noun").write_text("".join(data), encoding="utf-8")
    (folder / "index.noun").write_text("".join(index), encoding="utf-8")
    return folder
