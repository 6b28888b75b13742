"""Text for the tests of text: files that are written, and tables that are prepared."""

import json

from etude.data.files.text_source import BadDocument, open_texts
from etude.data.store.text_prepared import prepare_texts
from etude.data.tokens.config import ByteConfig
from etude.data.tokens.training import train_tokenizer

BYTES = train_tokenizer(ByteConfig(), [])


def read(corpus):
    """Every document as (file name, line, text), every bad one as (file name, line, reason)."""
    found = []
    for document in corpus.documents():
        where = document.file.rpartition("/")[2], document.line
        found.append((*where, document.reason if isinstance(document, BadDocument) else "".join(document.blocks)))
    return found


def table_of(folder, texts, tokenizer=BYTES, name="corpus"):
    """A table of documents, prepared."""
    files = folder / name
    files.mkdir()
    for number, text in enumerate(texts):
        (files / f"{number:05}.txt").write_bytes(text.encode())
    return prepare_texts(open_texts(files), tokenizer, folder / "cache").parts["all"]


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def written(folder, count=300, name="texts.jsonl"):
    """JSON lines of documents of one to nine lines."""
    path = folder / name
    path.write_text("".join(json.dumps({"text": f"Document é {n}.\n" * (n % 9 + 1)}) + "\n" for n in range(count)))
    return path
