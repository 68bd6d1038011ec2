"""
`mongodump --archive --gzip` and `mongorestore --drop`, where they are not installed.

They copy the documents and indexes of one database through MongoDB's protocol.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from typing import Any

import bson
import pymongo


def dump(database: Any) -> None:
    """Write all collections to the standard output."""
    with gzip.open(sys.stdout.buffer, "wb") as archive:
        for name in database.list_collection_names():
            for document in database[name].find():
                archive.write(bson.encode({"of": name, "document": document}))


def restore(database: Any) -> None:
    """Replace the documents of all collections by those of the standard input."""
    for name in database.list_collection_names():
        database[name].delete_many({})
    with gzip.open(sys.stdin.buffer, "rb") as archive:
        for one in bson.decode_file_iter(archive):
            database[one["of"]].insert_one(one["document"])


def main() -> None:
    """Do what the first argument names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=["mongodump", "mongorestore"])
    parser.add_argument("--uri", required=True)
    for flag in ("--archive", "--gzip", "--drop"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args()
    with pymongo.MongoClient(given.uri) as client:
        act = dump if given.tool == "mongodump" else restore
        act(client.get_default_database())


if __name__ == "__main__":
    main()
