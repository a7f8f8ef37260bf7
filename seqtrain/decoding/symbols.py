"""Words and their numbers, in the text format that OpenFst, Kaldi (`words.txt`) and k2 share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from seqtrain.errors import ArgumentError, DataError

__all__ = ["SymbolTable"]


class SymbolTable:
    """One-to-one between symbols and ids >= 0; `table[id]` is the symbol, `table.id(symbol)` its id.

    Raises:
        ArgumentError: a negative id, a symbol given twice, or one that is empty or holds white space.
    """

    def __init__(self, symbols: Mapping[int, str] | Iterable[str]) -> None:
        """From `{id: symbol}`, or from symbols with the ids 0, 1, …"""
        pairs = symbols.items() if isinstance(symbols, Mapping) else enumerate(symbols)
        self._symbols: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        for number, symbol in pairs:
            if number < 0:
                raise ArgumentError(
                    f"symbol {symbol!r} has the id {number}: ids are >= 0", argument="symbols"
                )
            if symbol.split() != [symbol]:
                raise ArgumentError(
                    f"symbol {symbol!r} (id {number}) is empty or holds white space", argument="symbols"
                )
            if symbol in self._ids:
                raise ArgumentError(
                    f"symbol {symbol!r} has two ids, {self._ids[symbol]} and {number}", argument="symbols"
                )
            self._symbols[number] = symbol
            self._ids[symbol] = number

    @classmethod
    def from_text(cls, text: str) -> SymbolTable:
        """Reads lines `symbol id`.

        Raises:
            DataError: a line that isn't of that form, or an id given twice; names the line.
        """
        symbols: dict[int, str] = {}
        for line_number, line in enumerate(text.splitlines(), start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 2 or not fields[1].isdecimal():
                raise DataError(f"line {line_number} isn't 'symbol id': {line!r:.100}")
            if int(fields[1]) in symbols:
                raise DataError(f"line {line_number} gives the id {fields[1]} a second time")
            symbols[int(fields[1])] = fields[0]
        return cls(symbols)

    def to_text(self) -> str:
        """Lines `symbol id`, by id."""
        return "".join(f"{symbol} {number}\n" for number, symbol in sorted(self._symbols.items()))

    def __getitem__(self, number: int) -> str:
        """The symbol of an id.

        Raises:
            ArgumentError: there is none.
        """
        if number not in self._symbols:
            raise ArgumentError(f"no symbol has the id {number}", argument="number")
        return self._symbols[number]

    def id(self, symbol: str) -> int:
        """The id of a symbol.

        Raises:
            ArgumentError: the table doesn't hold it.
        """
        if symbol not in self._ids:
            raise ArgumentError(f"the table has no symbol {symbol!r}", argument="symbol")
        return self._ids[symbol]

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._symbols)

    def __repr__(self) -> str:
        return f"SymbolTable({len(self)} symbols)"
