"""Prompt-to-Prompt (Hertz et al., arXiv 2208.01626): the target drawn beside the source's maps.

As in Custom-Edit: refinement by default, and a local blend whose mask is read from the source's
maps alone. Control touches the conditional rows only.

Which map of the source each token of the target takes, and how long, is after ``seq_aligner.py``
and ``ptp_utils.py`` of google/prompt-to-prompt: refinement, word swap, reweighting and
cross-replace steps. Prompts are read word by word, split at any white space.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.guided import combine
from customedit.diffusion.kept_features import Part, RowFeatures
from customedit.diffusion.method import Denoise, Method, Progress, ask
from customedit.diffusion.text import TextContext, Tokens, Weighted
from customedit.editing.beside import Drawn, Watched
from customedit.editing.guidance import Guidance
from customedit.editing.inversion import Inversion, empty_text, unconditional
from customedit.editing.kept_features import SourceFeatures
from customedit.editing.method_settings import P2PSettings, first_inverted_step, step_of
from customedit.editing.prompt_words import align
from customedit.editing.region import Region, word_columns
from customedit.errors import InputError

Span = tuple[int, int]
"""First and last + 1 token column of a word."""


def refine(source: Sequence[int], target: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
    """Refinement: a target token that the source has takes that token's map, others keep their own.

    source, target: [length] token ids: start, words, then end tokens as padding. Needleman-Wunsch
    over what stands before the padding (one end token included); columns after the target's end
    token map to themselves, as in ``get_mapper``.

    Returns:
        mapper: [length, length] float32; mapper[i, j] = 1 where target token j takes source token
        i's map. A column is one-hot, or zero where the token keeps its own map.
        taken: [length] float32 in {0, 1}: 1 where the map is the source's, 0 for inserted or
        changed tokens.

    Raises:
        InputError: if a prompt is not ``length`` ids long.
    """
    for name, ids in (("source prompt", source), ("target prompt", target)):
        if len(ids) != length:
            raise InputError(name, f"is {len(ids)} tokens long, not {length}", "pad it")
    before, after = _unpadded(source), _unpadded(target)
    mapper = torch.zeros(length, length)
    for i, j in align(before, after):
        mapper[i, j] = 1
    for j in range(len(after), length):
        mapper[j, j] = 1
    return mapper, mapper.sum(0)


def _unpadded(ids: Sequence[int]) -> Sequence[int]:
    """``ids`` up to the first of the equal tokens that they end in."""
    end = len(ids)
    while end > 1 and ids[end - 2] == ids[-1]:
        end -= 1
    return ids[:end]


def replace(source_spans: Sequence[Span], target_spans: Sequence[Span], length: int) -> Tensor:
    """Word swap: each target word takes the maps of the source word in its place.

    Words of equally many tokens map token to token; else each of the n target tokens takes 1/n of
    the sum over the source word's tokens (``get_replacement_mapper_``). Start maps to start and
    end to end; columns after the target's end map to themselves. Unlike the reference, words after
    the last changed one follow their word, not their column.

    source_spans, target_spans: of each word, in order and without gaps, from column 1 on.

    Returns:
        mapper: [length, length] float32, source columns to target columns.

    Raises:
        InputError: if the prompts differ in how many words they have, or do not fit in ``length``.
    """
    if len(source_spans) != len(target_spans):
        raise InputError(
            "target prompt",
            f"has {len(target_spans)} words and the source prompt has {len(source_spans)}, "
            "a word swap needs as many",
            "use refine for prompts of different length",
        )
    ends = [spans[-1][1] if spans else 1 for spans in (source_spans, target_spans)]
    if max(ends) >= length:
        raise InputError("prompt", f"ends at column {max(ends)} of {length}", "shorten it")
    mapper = torch.zeros(length, length)
    mapper[0, 0] = mapper[ends[0], ends[1]] = 1
    for j in range(ends[1] + 1, length):
        mapper[j, j] = 1
    for (a, b), (c, d) in zip(source_spans, target_spans, strict=True):
        if c < d:  # a word of a concept without an embedding has no columns
            mapper[a:b, c:d] = torch.eye(d - c) if b - a == d - c else 1 / (d - c)
    return mapper


def equalizer(length: int, factors: Mapping[int, float]) -> Tensor:
    """Reweighting: what each token's map is multiplied by, [length] float32, 1 where not given.

    factors: column to factor, any finite number; below 1 weakens a word, above strengthens it.

    Raises:
        InputError: for a column outside [0, length) or a factor that is no finite number.
    """
    out = torch.ones(length)
    for column, factor in factors.items():
        _check_column(column, length)
        if not math.isfinite(factor):
            raise InputError("factors", f"column {column} has {factor}", "give a finite number")
        out[column] = factor
    return out


def cross_replace(
    length: int,
    steps: int,
    default: float | tuple[float, float],
    per_column: Mapping[int, tuple[float, float]] | None = None,
) -> Tensor:
    """At which steps each token takes the replaced map: alpha [steps, length] float32 in {0, 1}.

    Alpha is 1 for steps in [int(start (steps + 1)), int(end (steps + 1))), as
    ``get_time_words_attention_alpha`` counts them; the map is replaced x alpha + own x (1 - alpha).

    default: (start, end) as shares of the steps, or the end alone, starting at 0; per_column: the
    same for single columns, instead of the default.

    Raises:
        InputError: unless 0 <= start <= end <= 1, or for a column outside [0, length).
    """
    if steps < 1:
        raise InputError("steps", f"is {steps}", "give 1 or more")
    whole = default if isinstance(default, tuple) else (0.0, float(default))
    alpha = _switched(whole, steps)[:, None].repeat(1, length)
    for column, bounds in (per_column or {}).items():
        _check_column(column, length)
        alpha[:, column] = _switched(bounds, steps)
    return alpha


def _switched(bounds: tuple[float, float], steps: int) -> Tensor:
    """[steps], 1 from the first bound to the second."""
    start, end = bounds
    if not 0 <= start <= end <= 1:
        raise InputError(
            "cross_replace", f"is ({start}, {end})", "give shares with 0 <= start <= end <= 1"
        )
    out = torch.zeros(steps)
    out[int(start * (steps + 1)) : int(end * (steps + 1))] = 1
    return out


def _check_column(column: int, length: int) -> None:
    if not 0 <= column < length:
        raise InputError("column", f"is {column}", f"give 0 to {length - 1}")


@dataclass(frozen=True)
class MapControl:
    """The settings as tensors, for two prompts.

    mapper: [tokens, tokens]; from_source, from_own: [steps, tokens]; self_until: the first step
    with the target's own self maps.
    """

    mapper: Tensor
    from_source: Tensor
    from_own: Tensor
    self_until: int

    def takes(self, step: int) -> set[Part]:
        """What the target takes of the source at ``step``."""
        taken: set[Part] = {"self"} if step < self.self_until else set()
        if bool((self.from_source[step] != 0).any() or (self.from_own[step] != 1).any()):
            taken.add("cross")
        return taken

    def control(
        self, step: int, rows: int, source: int | None, target: int, record: tuple[bool, bool]
    ) -> AttentionControl:
        """The control of one step, for ``rows`` rows of which two are the conditional ones.

        source: its row, None where the target takes kept features; record: whether the maps of
        source and target are handed back.
        """
        control = AttentionControl.none(rows, self.mapper.shape[0])
        if source is None:
            control.kept[target] = bool(self.takes(step))
            control.self_parts[target] &= step < self.self_until
        else:
            control.record[source] = record[0]
            control.cross_source[target] = source
            if step < self.self_until:
                control.self_source[target] = source
        control.mapper[target] = self.mapper
        control.from_source[target] = self.from_source[step]
        control.from_own[target] = self.from_own[step]
        control.record[target] = record[1]
        return control

    def changes(self, step: int) -> bool:
        """Whether the control of ``step`` differs from that of the step before."""
        if step == self.self_until:
            return True
        tables = (self.from_source, self.from_own)
        return step == 0 or not all(torch.equal(t[step], t[step - 1]) for t in tables)


def map_control(source: Tokens, target: Tokens, settings: P2PSettings, steps: int) -> MapControl:
    """Work out what each token of the target takes at each step.

    With m the mapped source map, o the target's own, e the factors and a the cross-replace alphas,
    the map is a e (t m + (1 - t) o) + (1 - a) o, where t is 1 for tokens that the source has
    (refine) or everywhere (replace): one factor on m and one on o per token.

    Raises InputError for words that are not in the target prompt and prompts that do not swap.
    """
    length = len(source.ids)
    if settings.way == "refine":
        mapper, taken = refine(source.ids, target.ids, length)
    else:
        mapper = replace(source.spans, target.spans, length)
        taken = torch.ones(length)
    factors = {
        column: float(value)
        for word, value in settings.reweight.items()
        for column in word_columns(target, word, "target_prompt")
    }
    bounds = {
        column: value
        for word, value in settings.words.items()
        for column in word_columns(target, word, "target_prompt")
    }
    equal = equalizer(length, factors)
    alpha = cross_replace(length, steps, settings.cross, bounds)
    return MapControl(
        mapper,
        alpha * equal * taken,
        alpha * equal * (1 - taken) + (1 - alpha),
        step_of(settings.own, steps),
    )


def base_maps(
    base: Base, source: Tokens, target: Tokens, settings: P2PSettings, steps: int
) -> MapControl:
    """``map_control``; without cross maps in a family that has none to mix.

    There the source's share is the queries and keys of its picture (arXiv 2508.07519), which are
    taken as self maps are. Raises InputError for settings that would mix cross maps.
    """
    if base.family.mapped_tokens:
        return map_control(source, target, settings, steps)
    for feature, field in settings.map_features.items():
        base.family.require(feature, field)
    return MapControl(
        torch.zeros(0, 0), torch.zeros(steps, 0), torch.zeros(steps, 0),
        step_of(settings.own, steps),
    )  # fmt: skip


def prompt_to_prompt(
    base: Base,
    inversion: Inversion,
    source: TextContext,
    target: TextContext,
    *,
    settings: P2PSettings | None = None,
    guidance: Guidance | float = 7.5,
    mask: Tensor | None = None,
    record: bool = False,
    empty: TextContext | None = None,
    everywhere: Sequence[Weighted] = (),
    features: SourceFeatures | None = None,
) -> Method[Drawn]:
    """Edit the picture that was inverted.

    source, target: the two prompts' contexts, made with equal lists of concepts. mask: the user's,
    [height, width] in [0, 1], outside of which nothing changes (``region``). record: hand the maps
    back. empty: the unconditional text, None for the inversion's own. everywhere: concepts that act
    on the unconditional rows as well; ``source``, ``target`` and ``empty`` are made with them.
    Before ``settings.start`` both rows lie on the stored trajectory, and nothing is predicted.

    With direct inversion (arXiv 2310.01506) the source row lies on the stored trajectory at every
    step, so it needs no unconditional row and comes out as it went in: three rows instead of four.
    A step without guidance has the two conditional rows alone. features: what earlier edits kept of
    the same inversion and source, and where this one keeps what it takes; then the source row is
    left out of the steps at which nothing is taken of it that is not kept. With other kinds of
    inversion, and in families without cross maps, they have no effect.

    Raises InputError as ``map_control`` and ``Region`` do.
    """
    settings = settings or P2PSettings()
    if source.tokens is None or target.tokens is None:
        raise ValueError("the contexts are of prompts")
    steps = inversion.steps
    maps = base_maps(base, source.tokens, target.tokens, settings, steps)
    size = (int(inversion.noise.shape[2]), int(inversion.noise.shape[3]))
    region = Region(settings, source, target, size, mask, base.device)
    watched = Watched(region, steps, record)
    inversion = inversion.to(base.device)
    direct = inversion.kind == "direct"
    guidance = Guidance.of(guidance)
    empty = empty or empty_text(base, inversion, everywhere)
    beside = base.unconditional(empty, target)
    x_source = x_target = inversion.noise
    first = first_inverted_step(settings.start, steps)
    # what decides the source's rows, apart from the step: nothing of the target
    way = "stored" if direct else (inversion.kind, first, guidance)
    origin = (way, id(inversion.trajectory), id(source))
    control: AttentionControl | None = None
    layout = (True, 0)  # of the rows that the control is for
    if not (direct and base.family.mapped_tokens):
        features = None
    takes: list[set[Part]] = []  # of the source, at each step
    if features is not None:
        takes = [maps.takes(k) | watched.parts if k >= first else set() for k in range(steps)]
        features.want(takes)
    schedule = base.schedule.sized(*size)
    for k, (time, to) in enumerate(schedule.downwards(steps)):
        if k < first:
            x_source = x_target = inversion.at(k + 1)
            yield Progress("edit", k + 1, steps)
            continue
        # 1. The rows: both conditional ones, and the unconditional ones that guidance needs. What
        #    is kept of the source stands for its row.
        kept = None if features is None else features.held(k, takes[k])
        here = kept is None
        none = empty
        if guidance.acts(k, steps):
            none = unconditional(base, inversion, k, empty, everywhere)
        own = beside if none is empty else base.unconditional(none, target)
        drawn = guidance.rows(base, target, own, k, steps)
        *unworded, read = [source] if direct else guidance.rows(base, source, none, k, steps)
        rows: list[tuple[Tensor, TextContext, Hashable]] = [
            *([(x_source, read, (*origin, k))] if here else []),
            *((x_target, text, None) for text in drawn),
            *((x_source, text, (*origin, k, "none")) for text in unworded),
        ]
        at = len(drawn) - (not here)  # the target's conditional row
        # 2. One call of the model.
        if control is None or layout != (here, len(rows)) or maps.changes(k):
            layout = here, len(rows)
            recorded = watched.source, watched.target
            control = maps.control(k, len(rows), 0 if here else None, at, recorded)
        filled = features.recording(k) if here and features is not None else None
        of_rows: list[RowFeatures | None] = [None] * len(rows)
        if filled is not None:
            of_rows[0] = RowFeatures(filled, source)
        elif kept is not None and maps.takes(k):
            of_rows[at] = RowFeatures(kept, source)
        request = Denoise(
            torch.cat([row[0] for row in rows]), time, [row[1] for row in rows], control,
            names=[row[2] for row in rows], shown=at, features=of_rows,
        )  # fmt: skip
        prediction = yield from ask(request)
        # 3. The step of each row, and the region.
        noise, scale = prediction.noise, guidance.scale
        of_target, of_source = noise[here : at + 1], noise[at + 1 :]
        x_target = schedule.step(x_target, combine(of_target, len(drawn), scale), time, to)
        if direct:
            x_source = inversion.at(k + 1)
        else:
            both = torch.cat([of_source, noise[:1]])
            x_source = schedule.step(x_source, combine(both, len(both), scale), time, to)
        if filled is not None and features is not None:
            features.recorded(filled, prediction.maps)
        watched.see(prediction.maps, None if kept is None else kept.maps)
        x_target = region.apply(x_source, x_target, k, steps)
        yield Progress("edit", k + 1, steps)
    return watched.result(x_target, x_source)
