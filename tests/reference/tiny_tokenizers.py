"""Tokenizers small enough to commit, trained on made-up captions, saved in the forms that model repositories publish.

`train_t5` trains a sentencepiece unigram model as T5's is: NFKC with the nmt rules, a dummy prefix, `<pad>`, `</s>`
and `<unk>` first. `write_t5` puts it into a folder as `spiece.model`, with or without a `tokenizer.json`.
`write_clip` trains byte pairs as CLIP's are and writes `vocab.json` and `merges.txt`; `write_qwen2` does so for Qwen's,
or writes `tokenizer.json`, and `write_gemma` trains Gemma's pieces. `write_bert` writes pieces of words as
BERT's are, as `vocab.txt`, and `write_mistral` byte pairs as Mistral's, as `tokenizer.json`.
"""

import io
import json
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, GemmaTokenizer, Qwen2Tokenizer, T5Tokenizer

EXTRA_IDS = 100
"""The sentinels `<extra_id_99>` to `<extra_id_0>` that stand behind the pieces of every T5 tokenizer."""
T5_MAX_LENGTH = 512


def phrases(text: str) -> list[str]:
    """Phrases that semicolons part, with one space between words."""
    return [" ".join(phrase.split()) for phrase in text.split(";")]


THINGS = phrases(
    """
    fox; red apple; lighthouse; tiny robot; snow leopard; bicycle; old wooden boat; castle; bowl of ramen; jazz band;
    astronaut; glass teapot; field of sunflowers; mountain village; steam locomotive; hummingbird; cup of coffee; stone
    bridge; pair of boots; sleeping cat; golden retriever; market stall; greenhouse; paper crane; hot air balloon; quiet
    library; street musician; chess board; sailing ship; desert road; waterfall; loaf of bread; clock tower; coral reef;
    violin; polar bear; campfire; rain forest; space station; wedding cake
    """
)
DOINGS = phrases(
    """
    stands in the fog; floats over the water; is lit by the morning sun; waits beside the window; glows in the dark; is
    covered with snow; rests on a wooden table; moves slowly through the city; looks at the stars; hides behind tall
    grass; shines after the rain; is painted on an old wall; leans against the door; casts a long shadow; is surrounded
    by flowers; burns brightly at night; appears between two hills; turns towards the camera
    """
)
PLACES = phrases(
    """
    in Kyoto; at the edge of a forest; near the harbour; on the moon; under a bridge; in a small kitchen; by the river;
    in the year 2045; at 35 mm; inside a museum; on a rooftop; along the coast; in the Alps; below the surface; at the
    North Pole; in a café; above the clouds; next to a red door; for 10 people; behind the theatre
    """
)
STYLES = phrases(
    """
    oil painting; watercolour; photograph, 4k, highly detailed; pencil sketch; pixel art; studio lighting; wide angle,
    shallow depth of field; black and white film; children's book illustration; low-poly render; soft pastel colours;
    cinematic, dramatic light; isometric view; "golden hour"; art nouveau poster; close-up; minimalistic; 8-bit; long
    exposure; hand-drawn comic
    """
)
QUANTITIES = phrases(
    """
    a; the; one; two; three; an enormous; a very small; several; a beautiful; a broken; a blue; a green; an ancient; a
    modern; a transparent; a crowded; 5; 12; 300
    """
)


def captions(count: int = 800) -> list[str]:
    """Made-up English captions, the same ones on every call."""
    pick = random.Random(0).choice
    patterns = (
        lambda: f"{pick(QUANTITIES).capitalize()} {pick(THINGS)} {pick(DOINGS)} {pick(PLACES)}.",
        lambda: f"{pick(STYLES)} of {pick(QUANTITIES)} {pick(THINGS)} and {pick(QUANTITIES)} {pick(THINGS)}",
        lambda: f"{pick(THINGS)}, {pick(PLACES)}, {pick(STYLES)}, {pick(STYLES)}",
        lambda: f"Why is there {pick(QUANTITIES)} {pick(THINGS)} {pick(PLACES)}? Because it {pick(DOINGS)}!",
        lambda: f"{pick(PLACES).capitalize()}: {pick(THINGS)} (not {pick(THINGS)}); {pick(STYLES)} / {pick(STYLES)}",
    )
    return [pick(patterns)() for _ in range(count)]


def train_t5(pieces: int = 320) -> bytes:
    """The bytes of a `spiece.model` with this many pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions()),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,  # the order of sums, and so the scores, do not depend on the machine's cores
        minloglevel=2,
    )
    return model.getvalue()


def write_t5(folder: Path, model: bytes, as_tokenizer_json: bool) -> None:
    """Write a T5 tokenizer as repositories publish it.

    `spiece.model` and the configs are what transformers 4 saved for its slow tokenizer; `tokenizer.json` is the
    conversion that transformers 5 makes of them.
    """
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    sentinels = [f"<extra_id_{index}>" for index in range(EXTRA_IDS)]
    ids = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    ids |= {sentinel: pieces + EXTRA_IDS - 1 - index for index, sentinel in enumerate(sentinels)}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "added_tokens_decoder": {str(at): {"content": token, **flags} for token, at in sorted_by_id(ids)},
        "additional_special_tokens": sentinels,
        "clean_up_tokenization_spaces": True,
        "eos_token": "</s>",
        "extra_ids": EXTRA_IDS,
        "legacy": True,
        "model_max_length": T5_MAX_LENGTH,
        "pad_token": "<pad>",
        "sp_model_kwargs": {},
        "tokenizer_class": "T5Tokenizer",
        "unk_token": "<unk>",
    }
    write_json(folder / "tokenizer_config.json", config)
    special = {name: {"content": config[name], **flags} for name in ("eos_token", "pad_token", "unk_token")}
    for token in special.values():
        del token["special"]
    write_json(folder / "special_tokens_map.json", {"additional_special_tokens": sentinels, **special})
    write_json(folder / "added_tokens.json", {token: at for token, at in sorted(ids.items()) if at >= pieces})
    if as_tokenizer_json:
        tokenizer = T5Tokenizer.from_pretrained(folder)  # there is only spiece.model to read so far
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        check_t5(tokenizer, folder)


def check_t5(tokenizer: T5Tokenizer, folder: Path) -> None:
    """`tokenizer.json` says the same as `spiece.model`, which sentencepiece reads as we do but for special tokens."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    converted = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in (*UNUSUAL_TEXTS, *captions()):
        ids = converted.encode(text).ids
        assert ids == tokenizer(text).input_ids, text
        assert "<" in text or ids == [*pieces.encode(text), pieces.eos_id()], text


CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
CLIP_MAX_LENGTH = 77


def train_clip(merges: int = 300) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary and merges: 256 bytes, 256 bytes that end a word, one token per merge, start and end.

    The most frequent pair is merged next; among equals the first in the alphabet.
    """
    backend = CLIPTokenizer().backend_tokenizer
    counts: Counter[tuple[str, ...]] = Counter()
    for caption in captions():
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(caption)):
            counts[(*word[:-1], word[-1] + "</w>")] += 1
    learnt = learn_merges(counts, merges)
    alphabet = sorted(ByteLevel.alphabet(), key=lambda symbol: (not symbol.isascii(), symbol))  # "!" is CLIP's first
    tokens = [*alphabet, *(symbol + "</w>" for symbol in alphabet), *("".join(pair) for pair in learnt)]
    vocabulary = {token: at for at, token in enumerate([*tokens, CLIP_START, CLIP_END])}
    assert vocabulary["!"] == 0 and len(vocabulary) == 2 * 256 + merges + 2
    return vocabulary, learnt


def learn_merges(counts: Counter[tuple[str, ...]], merges: int) -> list[tuple[str, str]]:
    """So many merges of counted words. The most frequent pair is next; among equals the first in the alphabet."""
    learnt: list[tuple[str, str]] = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learnt.append(best)
        counts = Counter({merged(word, best): count for word, count in counts.items()})
    return learnt


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The word with every occurrence of the pair made one symbol."""
    symbols: list[str] = []
    for symbol in word:
        if symbols and (symbols[-1], symbol) == pair:
            symbols[-1] += symbol
        else:
            symbols.append(symbol)
    return tuple(symbols)


def write_clip(folder: Path, pad_token: str) -> None:
    """Write a CLIP tokenizer as repositories publish it; `pad_token` is the end token, or "!" in the larger CLIP's."""
    folder.mkdir(parents=True)
    vocabulary, merges = train_clip()
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    pad_flags = flags | {"normalized": pad_token == CLIP_END}
    added = {pad_token: pad_flags, CLIP_START: flags, CLIP_END: flags}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(at): {"content": token, **added[token], "special": True}
            for token, at in sorted_by_id({token: vocabulary[token] for token in added})
        },
        "bos_token": CLIP_START,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "eos_token": CLIP_END,
        "errors": "replace",
        "model_max_length": CLIP_MAX_LENGTH,
        "pad_token": pad_token,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": CLIP_END,
    }
    write_json(folder / "tokenizer_config.json", config)
    special = {name: {"content": config[name], **flags} for name in ("bos_token", "eos_token", "unk_token")}
    write_json(folder / "special_tokens_map.json", special | {"pad_token": {"content": pad_token, **pad_flags}})


QWEN_END = "<|endoftext|>"
QWEN_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
QWEN_PLAIN_MARKS = ("<think>", "</think>")
"""Tokens behind the vocabulary that are not special."""
QWEN_TEMPLATE = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role != "system" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
"""Qwen3's, as far as it concerns a system's and a user's message."""


def train_qwen2(merges: int, template: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Qwen's vocabulary and merges: 256 bytes and one token per merge. The words of `template` come first."""
    backend = Qwen2Tokenizer().backend_tokenizer
    words: Counter[tuple[str, ...]] = Counter()
    for text, weight in (*((caption, 1) for caption in captions()), (template, 1000)):
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            words[tuple(word)] += weight
    learnt = learn_merges(words, merges)
    alphabet = sorted(ByteLevel.alphabet(), key=lambda symbol: (not symbol.isascii(), symbol))
    return {token: at for at, token in enumerate([*alphabet, *("".join(pair) for pair in learnt)])}, learnt


def write_qwen2(folder: Path, as_tokenizer_json: bool, merges: int = 300, template: str = "") -> int:
    """Write a Qwen tokenizer as repositories publish it, in one file or as `vocab.json` and `merges.txt`.

    Returns how many tokens there are.
    """
    folder.mkdir(parents=True)
    vocabulary, learnt = train_qwen2(merges, template)
    marks = {mark: len(vocabulary) + at for at, mark in enumerate((*QWEN_MARKS, *QWEN_PLAIN_MARKS))}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {str(at): {"content": mark, **flags, "special": mark in QWEN_MARKS} for mark, at in marks.items()}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(QWEN_MARKS[1:]),
        "bos_token": None,
        "chat_template": QWEN_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": QWEN_END,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write_json(folder / "tokenizer_config.json", config)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in learnt))
    if as_tokenizer_json:
        tokenizer = Qwen2Tokenizer.from_pretrained(folder)
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
    return len(vocabulary) + len(marks)


def write_gemma(folder: Path, merges: int = 300) -> int:
    """Write a Gemma tokenizer as repositories publish it. Returns how many tokens there are."""
    folder.mkdir(parents=True)
    texts = [caption.replace(" ", "\u2581") for caption in captions()]
    words: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words.update(tuple(("\u2581" if at else "") + word) for at, word in enumerate(text.split("\u2581")))
    learnt = learn_merges(words, merges)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    characters = sorted({character for text in texts for character in text})
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *characters, *("".join(pair) for pair in learnt)]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=learnt, add_bos_token=True)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(vocabulary[token]): {"content": token, **flags} for token in special},
        "bos_token": "<bos>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>",
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<pad>",
        "padding_side": "left",
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }
    write_json(folder / "tokenizer_config.json", config)
    return len(vocabulary)


MISTRAL_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What becomes a word in Mistral's tokenizers since Nemo."""


def write_mistral(folder: Path, merges: int = 300) -> int:
    """Write a tokenizer of Mistral Small as repositories publish it. Returns how many tokens there are."""
    folder.mkdir(parents=True)
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"]
    special += ["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", *(f"<SPECIAL_{at}>" for at in range(11, 20))]
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(MISTRAL_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words: Counter[tuple[str, ...]] = Counter()
    for text in captions():
        words.update(tuple(word) for word, _ in splitter.pre_tokenize_str(text))
    learnt = learn_merges(words, merges)
    alphabet = sorted(ByteLevel.alphabet(), key=lambda symbol: (not symbol.isascii(), symbol))
    pieces = [*special, *alphabet, *("".join(pair) for pair in learnt)]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=learnt, ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(at): {"content": token, **flags} for at, token in enumerate(special)},
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<pad>",
        "padding_side": "left",
        "processor_class": "PixtralProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }
    write_json(folder / "tokenizer_config.json", config)
    return len(vocabulary)


CHINESE = "一只红色的狐狸在咖啡馆里水彩画漢字"


def bert_vocabulary() -> list[str]:
    """A WordPiece vocabulary as BERT's for Chinese and English: special tokens, characters, whole words and endings."""
    characters = sorted({*"".join(captions()).lower(), *"0123456789abcdefghijklmnopqrstuvwxyz!?<>_½é"} - {" "})
    words = Counter(word for caption in captions() for word in re.findall("[a-z]+", caption.lower()))
    frequent = sorted(words, key=lambda word: (-words[word], word))[:120]
    endings = ("##s", "##ed", "##ing", "##er", "##ly", "##tion", "##house", "##light", "##ible")
    inside = [f"##{character}" for character in characters if character.isalnum()]
    special = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *dict.fromkeys([*characters, *CHINESE, *inside, *endings, *frequent])]


def write_bert(folder: Path, vocabulary: list[str]) -> None:
    """Write a BERT tokenizer as repositories publish it: `vocab.txt`, a line for each token."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
    names = ("cls_token", "mask_token", "pad_token", "sep_token", "unk_token")
    tokens = {name: f"[{name.split('_')[0].upper()}]" for name in names}
    config = {
        "cls_token": "[CLS]",
        "do_basic_tokenize": True,
        "do_lower_case": True,
        "mask_token": "[MASK]",
        "model_max_length": 77,
        "name_or_path": "hfl/chinese-roberta-wwm-ext",
        "never_split": None,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    }
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", tokens)


def sorted_by_id(ids: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(ids.items(), key=lambda entry: entry[1])


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


UNUSUAL_TEXTS = (
    "",
    " ",
    "a red apple",
    "  spaces   at the  ends \t\n and a line break ",
    "A Red Apple, UPPER and Title Case",
    "an unknown 漢字 and ☃ snowman",
    "emoji 🦊🦊 twice",
    "ﬁne ligature, ｆｕｌｌ ｗｉｄｔｈ, ½ and ² and ™",
    "café decomposed: cafe\u0301",
    "no\u00a0break\u00a0space, zero\u200bwidth, soft\u00adhyphen",
    "quotes “curly” ‘single’ and dash — en – minus −",
    "</s> in the middle <pad> of it",
    "<extra_id_0> and <extra_id_99>",
    "x" * 40,
    "antidisestablishmentarianism 1234567890 3.14159",
    "tabs\tand\r\nwindows line ends",
    "\u2581 the space mark itself",
    "wow!!! it's here! they've won, I'd say",
    "<|endoftext|> and <|startoftext|>",
    "İstanbul, Straße, Ελλάδα, Ünïcödé",
)
"""Texts on which tokenizers tend to disagree."""
