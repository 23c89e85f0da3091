"""Colours and dashes of curves in all charts."""

#: Okabe and Ito's colours, which colour-blind readers can distinguish ("Color universal design",
#: 2008). Their black is replaced by a grey, visible on light and dark; their yellow is omitted,
#: since it is invisible on white. Seven more follow for charts of many series.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080",
    "#7B61C9", "#A6B727", "#E0567B", "#2BB5A8", "#8C6D31", "#4E5FA8", "#AF2BBF",
)  # fmt: skip
DASHES: tuple[tuple[int, ...], ...] = (
    (),
    (8, 4),
    (2, 3),
    (10, 3, 2, 3),
    (4, 2),
    (12, 3, 2, 3, 2, 3),
)
