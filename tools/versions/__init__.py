"""``python -m tools.versions``: the suite on the versions of each server that users have, and the page of it.

python -m tools.versions                       every server: first and last patch of each minor release in its range
python -m tools.versions aiohttp tornado       these servers
python -m tools.versions tornado==6.4.2        this version, whether it is within the range or not
python -m tools.versions --missing             those that the committed table lacks
python -m tools.versions --ends                the oldest and the newest of each alone
python -m tools.versions --newer               tell which servers have newer releases than the table, and try nothing
python -m tools.versions --write-docs          write ``docs/versions.md`` from the committed table alone

What is found is compared with ``docs/versions.json``: a version whose verdict is another one, or a failure, ends the
run with exit code 1. With ``--write`` it is put into that table, and the page is written anew.
"""
