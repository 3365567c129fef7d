from pixart_sigma.benchmark.table import render_table


def test_a_table_is_markdown() -> None:
    rows = [{"a": 1, "b": 0.12345, "c": None}, {"a": 2, "b": 12345.6, "c": "x"}]
    assert render_table(rows) == "| a | b | c |\n|---|---|---|\n| 1 | 0.123 | - |\n| 2 | 12,346 | x |"
