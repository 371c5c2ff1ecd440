"""Requests as methods. Made by ``python -m customedit.client.generate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from customedit.client import calls
from customedit.client.calls import Answer, Call
from customedit.schemas import answers as d
from customedit.schemas.concepts import TrainingOptions
from customedit.schemas.methods import (
    DdpmOptions,
    DirectEditOptions,
    FlowEditOptions,
    MasaCtrlOptions,
    P2POptions,
    PlugAndPlayOptions,
    SDEditOptions,
)
from customedit.schemas.requests import ConceptUse


class Requests:
    """The requests of the service as methods, with their fields as parameters."""

    def _do(self, call: Call[Answer]) -> Answer:
        raise NotImplementedError

    def customize(
        self,
        *,
        noun: str,
        references: Sequence[str],
        attribute: str = "patterned",
        token: str = "<look>",
        nouns: Sequence[str] = (),
        masks: Sequence[str] = (),
        name: str = "",
        training: TrainingOptions | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> d.Job:
        """Learn a concept from 1 to 20 reference images (3 to 6 are best).

        Args:
            noun: What the references show.
            references: Ids of the reference images.
            attribute: What of the references is learned; empty for the whole object.
            token: How prompts name the concept.
            nouns: What each reference shows, in their order, where they show several classes.
            masks: Ids of images, one for each reference, white where the look is: it is learned
                there alone.
            name: A title for people.
            training: Expert settings.
            webhook: An https address that is called at the job's end, signed with your secret.
            idempotency_key: A request that is sent again with it is not done again; left out, a
                fresh one.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "noun": noun,
            "references": references,
            "attribute": attribute,
            "token": token,
            "nouns": nouns,
            "masks": masks,
            "name": name,
            "training": training,
            "webhook": webhook,
        }
        return self._do(calls.customize(values, idempotency_key))

    def edit(
        self,
        *,
        target_prompt: str,
        image: str,
        source_prompt: str = "",
        method: Literal["p2p", "sdedit", "masactrl", "pnp", "ddpm", "directedit", "flowedit"]
        | None = None,
        preset: Literal["paper"] | None = None,
        strengths: Sequence[float] | None = None,
        change: float | Literal["auto"] | None = None,
        seeds: Sequence[int] = (0,),
        steps: int = 50,
        guidance: float | None = None,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        inversion: Literal["direct", "null-text", "negative-prompt", "ddim"] | None = None,
        p2p: P2POptions | None = None,
        sdedit: SDEditOptions | None = None,
        masactrl: MasaCtrlOptions | None = None,
        pnp: PlugAndPlayOptions | None = None,
        ddpm: DdpmOptions | None = None,
        directedit: DirectEditOptions | None = None,
        flowedit: FlowEditOptions | None = None,
        preserve: bool | None = None,
        feather: float | None = None,
        everywhere: bool = False,
        concepts: Sequence[ConceptUse] = (),
        maps: bool = False,
        references: Sequence[str] = (),
        webhook: str | None = None,
        mask: str | None = None,
        mask_marks: Literal["white", "transparent"] = "white",
        idempotency_key: str | None = None,
    ) -> d.Job:
        """Edit a picture by prompt, at one or several strengths and seeds.

        Args:
            target_prompt: What the picture shall show; it names concepts by their tokens.
            image: Id of the picture to edit: an image, or an output of an earlier edit.
            source_prompt: What the picture shows. All methods but sdedit need it; with it
                sdedit keeps to the region of the words that change, without it all may change.
            method: `p2p` keeps the shape of the source, `sdedit` paints more freely;
                `masactrl`, `pnp`, `ddpm` (edit-friendly DDPM) and `directedit` are the editors
                of other papers, `flowedit` the one for bases of flow matching. Left out, `p2p`,
                or what the preset sets.
            preset: `paper` is p2p with null-text inversion and without `preserve`, as Custom-
                Edit publishes it.
            strengths: One picture for each. sdedit and flowedit: share of the way into noise;
                all others: more keeps more of the source. Left out, the method's default.
            change: How much changes, in every method: 0 gives the source back, 1 changes most;
                `auto` draws several and chooses by source and references. Instead of strengths.
            seeds: One picture for each strength and seed. Only sdedit, ddpm and flowedit draw
                by chance; the others take one seed.
            steps: DDIM steps.
            guidance: Scale of classifier-free guidance; left out, the base's own.
            guidance_start: Share of the steps before which nothing is guided.
            guidance_end: Share of the steps after which nothing is guided, which is faster.
            inversion: How p2p inverts the source picture. Left out, `direct`, or what the
                preset sets.
            p2p: Expert settings of Prompt-to-Prompt.
            sdedit: Expert settings of SDEdit.
            masactrl: Expert settings of MasaCtrl.
            pnp: Expert settings of Plug-and-Play.
            ddpm: Expert settings of edit-friendly DDPM.
            directedit: Expert settings of DirectEdit.
            flowedit: Expert settings of FlowEdit.
            preserve: Paste the source's own pixels outside the edited region; left out,
                wherever the edit has a region.
            feather: Width of the soft edge of that paste, in source pixels; left out, 1 where
                the region ends at the outline of its thing, 2 in a mask, else 8 of those that
                the base draws.
            everywhere: Let the concepts act on the source prompt and the empty prompt, too.
            concepts: The concepts that the target prompt names.
            maps: Keep the attention maps as a file.
            references: Images that the result is compared with; left out, the references of the
                concepts.
            webhook: An https address that is called at the job's end, signed with your secret.
            mask: Id of an image that is white where the edit may change the picture.
            mask_marks: What in the mask marks where the edit may change the picture: `white`,
                or `transparent` as in masks of OpenAI's images API.
            idempotency_key: A request that is sent again with it is not done again; left out, a
                fresh one.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "target_prompt": target_prompt,
            "image": image,
            "source_prompt": source_prompt,
            "method": method,
            "preset": preset,
            "strengths": strengths,
            "change": change,
            "seeds": seeds,
            "steps": steps,
            "guidance": guidance,
            "guidance_start": guidance_start,
            "guidance_end": guidance_end,
            "inversion": inversion,
            "p2p": p2p,
            "sdedit": sdedit,
            "masactrl": masactrl,
            "pnp": pnp,
            "ddpm": ddpm,
            "directedit": directedit,
            "flowedit": flowedit,
            "preserve": preserve,
            "feather": feather,
            "everywhere": everywhere,
            "concepts": concepts,
            "maps": maps,
            "references": references,
            "webhook": webhook,
            "mask": mask,
            "mask_marks": mask_marks,
        }
        return self._do(calls.edit(values, idempotency_key))

    def edit_batch(
        self,
        *,
        target_prompt: str,
        images: Sequence[str],
        source_prompt: str = "",
        method: Literal["p2p", "sdedit", "masactrl", "pnp", "ddpm", "directedit", "flowedit"]
        | None = None,
        preset: Literal["paper"] | None = None,
        strengths: Sequence[float] | None = None,
        change: float | Literal["auto"] | None = None,
        seeds: Sequence[int] = (0,),
        steps: int = 50,
        guidance: float | None = None,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        inversion: Literal["direct", "null-text", "negative-prompt", "ddim"] | None = None,
        p2p: P2POptions | None = None,
        sdedit: SDEditOptions | None = None,
        masactrl: MasaCtrlOptions | None = None,
        pnp: PlugAndPlayOptions | None = None,
        ddpm: DdpmOptions | None = None,
        directedit: DirectEditOptions | None = None,
        flowedit: FlowEditOptions | None = None,
        preserve: bool | None = None,
        feather: float | None = None,
        everywhere: bool = False,
        concepts: Sequence[ConceptUse] = (),
        maps: bool = False,
        references: Sequence[str] = (),
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> d.Batch:
        """Edit many pictures in one way: a job for each.

        Args:
            target_prompt: What the picture shall show; it names concepts by their tokens.
            images: Ids of the pictures to edit: images, or outputs of earlier edits.
            source_prompt: What the picture shows. All methods but sdedit need it; with it
                sdedit keeps to the region of the words that change, without it all may change.
            method: `p2p` keeps the shape of the source, `sdedit` paints more freely;
                `masactrl`, `pnp`, `ddpm` (edit-friendly DDPM) and `directedit` are the editors
                of other papers, `flowedit` the one for bases of flow matching. Left out, `p2p`,
                or what the preset sets.
            preset: `paper` is p2p with null-text inversion and without `preserve`, as Custom-
                Edit publishes it.
            strengths: One picture for each. sdedit and flowedit: share of the way into noise;
                all others: more keeps more of the source. Left out, the method's default.
            change: How much changes, in every method: 0 gives the source back, 1 changes most;
                `auto` draws several and chooses by source and references. Instead of strengths.
            seeds: One picture for each strength and seed. Only sdedit, ddpm and flowedit draw
                by chance; the others take one seed.
            steps: DDIM steps.
            guidance: Scale of classifier-free guidance; left out, the base's own.
            guidance_start: Share of the steps before which nothing is guided.
            guidance_end: Share of the steps after which nothing is guided, which is faster.
            inversion: How p2p inverts the source picture. Left out, `direct`, or what the
                preset sets.
            p2p: Expert settings of Prompt-to-Prompt.
            sdedit: Expert settings of SDEdit.
            masactrl: Expert settings of MasaCtrl.
            pnp: Expert settings of Plug-and-Play.
            ddpm: Expert settings of edit-friendly DDPM.
            directedit: Expert settings of DirectEdit.
            flowedit: Expert settings of FlowEdit.
            preserve: Paste the source's own pixels outside the edited region; left out,
                wherever the edit has a region.
            feather: Width of the soft edge of that paste, in source pixels; left out, 1 where
                the region ends at the outline of its thing, 2 in a mask, else 8 of those that
                the base draws.
            everywhere: Let the concepts act on the source prompt and the empty prompt, too.
            concepts: The concepts that the target prompt names.
            maps: Keep the attention maps as a file.
            references: Images that the result is compared with; left out, the references of the
                concepts.
            webhook: An https address that is called at the job's end, signed with your secret.
            idempotency_key: A request that is sent again with it is not done again; left out, a
                fresh one.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "target_prompt": target_prompt,
            "images": images,
            "source_prompt": source_prompt,
            "method": method,
            "preset": preset,
            "strengths": strengths,
            "change": change,
            "seeds": seeds,
            "steps": steps,
            "guidance": guidance,
            "guidance_start": guidance_start,
            "guidance_end": guidance_end,
            "inversion": inversion,
            "p2p": p2p,
            "sdedit": sdedit,
            "masactrl": masactrl,
            "pnp": pnp,
            "ddpm": ddpm,
            "directedit": directedit,
            "flowedit": flowedit,
            "preserve": preserve,
            "feather": feather,
            "everywhere": everywhere,
            "concepts": concepts,
            "maps": maps,
            "references": references,
            "webhook": webhook,
        }
        return self._do(calls.edit_batch(values, idempotency_key))

    def import_concept(
        self,
        path: Path,
        *,
        noun: str = "",
        attribute: str = "",
        token: str | None = None,
        name: str = "",
        allow_unused: bool = False,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> d.Job:
        """Make a concept from a file of weights.

        Args:
            path: The file.
            noun: What the references showed, if it is known.
            attribute: What of them was learned, if it is known.
            token: A new token; left out, the one in the file is kept.
            name: A title for people.
            allow_unused: Take a LoRA of which the base cannot use every layer, or that changes
                nothing.
            webhook: An https address that is called at the job's end, signed with your secret.
            idempotency_key: A request that is sent again with it is not done again; left out, a
                fresh one.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "noun": noun,
            "attribute": attribute,
            "token": token,
            "name": name,
            "allow_unused": allow_unused,
            "webhook": webhook,
        }
        return self._do(calls.import_concept(path, values, idempotency_key))

    def try_customize(
        self,
        *,
        noun: str,
        references: Sequence[str],
        attribute: str = "patterned",
        token: str = "<look>",
        nouns: Sequence[str] = (),
        masks: Sequence[str] = (),
        name: str = "",
        training: TrainingOptions | None = None,
        webhook: str | None = None,
    ) -> d.DryRun:
        """What ``customize`` would do, and how long it would take; nothing is stored.

        Args:
            noun: What the references show.
            references: Ids of the reference images.
            attribute: What of the references is learned; empty for the whole object.
            token: How prompts name the concept.
            nouns: What each reference shows, in their order, where they show several classes.
            masks: Ids of images, one for each reference, white where the look is: it is learned
                there alone.
            name: A title for people.
            training: Expert settings.
            webhook: An https address that is called at the job's end, signed with your secret.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "noun": noun,
            "references": references,
            "attribute": attribute,
            "token": token,
            "nouns": nouns,
            "masks": masks,
            "name": name,
            "training": training,
            "webhook": webhook,
        }
        return self._do(calls.try_customize(values))

    def save_preset(
        self,
        name: str,
        *,
        source_prompt: str = "",
        target_prompt: str = "",
        method: Literal["p2p", "sdedit", "masactrl", "pnp", "ddpm", "directedit", "flowedit"]
        | None = None,
        preset: Literal["paper"] | None = None,
        strengths: Sequence[float] | None = None,
        change: float | Literal["auto"] | None = None,
        seeds: Sequence[int] = (0,),
        steps: int = 50,
        guidance: float | None = None,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        inversion: Literal["direct", "null-text", "negative-prompt", "ddim"] | None = None,
        p2p: P2POptions | None = None,
        sdedit: SDEditOptions | None = None,
        masactrl: MasaCtrlOptions | None = None,
        pnp: PlugAndPlayOptions | None = None,
        ddpm: DdpmOptions | None = None,
        directedit: DirectEditOptions | None = None,
        flowedit: FlowEditOptions | None = None,
        preserve: bool | None = None,
        feather: float | None = None,
        everywhere: bool = False,
        concepts: Sequence[ConceptUse] = (),
    ) -> d.Preset:
        """Save settings of edits under a name; what is left out is left to the edit.

        Args:
            name: Under which name.
            source_prompt: What the picture shows. All methods but sdedit need it; with it
                sdedit keeps to the region of the words that change, without it all may change.
            target_prompt: What the pictures shall show, if it is always the same.
            method: `p2p` keeps the shape of the source, `sdedit` paints more freely;
                `masactrl`, `pnp`, `ddpm` (edit-friendly DDPM) and `directedit` are the editors
                of other papers, `flowedit` the one for bases of flow matching. Left out, `p2p`,
                or what the preset sets.
            preset: `paper` is p2p with null-text inversion and without `preserve`, as Custom-
                Edit publishes it.
            strengths: One picture for each. sdedit and flowedit: share of the way into noise;
                all others: more keeps more of the source. Left out, the method's default.
            change: How much changes, in every method: 0 gives the source back, 1 changes most;
                `auto` draws several and chooses by source and references. Instead of strengths.
            seeds: One picture for each strength and seed. Only sdedit, ddpm and flowedit draw
                by chance; the others take one seed.
            steps: DDIM steps.
            guidance: Scale of classifier-free guidance; left out, the base's own.
            guidance_start: Share of the steps before which nothing is guided.
            guidance_end: Share of the steps after which nothing is guided, which is faster.
            inversion: How p2p inverts the source picture. Left out, `direct`, or what the
                preset sets.
            p2p: Expert settings of Prompt-to-Prompt.
            sdedit: Expert settings of SDEdit.
            masactrl: Expert settings of MasaCtrl.
            pnp: Expert settings of Plug-and-Play.
            ddpm: Expert settings of edit-friendly DDPM.
            directedit: Expert settings of DirectEdit.
            flowedit: Expert settings of FlowEdit.
            preserve: Paste the source's own pixels outside the edited region; left out,
                wherever the edit has a region.
            feather: Width of the soft edge of that paste, in source pixels; left out, 1 where
                the region ends at the outline of its thing, 2 in a mask, else 8 of those that
                the base draws.
            everywhere: Let the concepts act on the source prompt and the empty prompt, too.
            concepts: The concepts that the target prompt names.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "source_prompt": source_prompt,
            "target_prompt": target_prompt,
            "method": method,
            "preset": preset,
            "strengths": strengths,
            "change": change,
            "seeds": seeds,
            "steps": steps,
            "guidance": guidance,
            "guidance_start": guidance_start,
            "guidance_end": guidance_end,
            "inversion": inversion,
            "p2p": p2p,
            "sdedit": sdedit,
            "masactrl": masactrl,
            "pnp": pnp,
            "ddpm": ddpm,
            "directedit": directedit,
            "flowedit": flowedit,
            "preserve": preserve,
            "feather": feather,
            "everywhere": everywhere,
            "concepts": concepts,
        }
        return self._do(calls.save_preset(name, values))

    def make_key(
        self,
        *,
        name: str = "",
        scopes: Sequence[
            Literal["images:write", "edits:write", "concepts:write", "read", "admin"]
        ] = ("images:write", "edits:write", "concepts:write", "read"),
        days: float | None = None,
    ) -> d.NewApiKey:
        """Make an API key.

        Args:
            name: A note to find it again.
            scopes: What it may do; `admin` includes all others, and keys and the secret of
                webhooks.
            days: Days until it expires; left out, as long as the key that makes it.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "name": name,
            "scopes": scopes,
            "days": days,
        }
        return self._do(calls.make_key(values))

    def read_prompts(
        self,
        *,
        prompts: Sequence[str],
        concepts: Sequence[str] = (),
    ) -> d.PromptReadings:
        """Count the tokens of prompts, and name the words that the base does not know.

        Args:
            prompts: The prompts to be read.
            concepts: Ids of the concepts that they name, whose tokens count as well.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "prompts": prompts,
            "concepts": concepts,
        }
        return self._do(calls.read_prompts(values))

    def try_edit(
        self,
        *,
        target_prompt: str,
        image: str,
        source_prompt: str = "",
        method: Literal["p2p", "sdedit", "masactrl", "pnp", "ddpm", "directedit", "flowedit"]
        | None = None,
        preset: Literal["paper"] | None = None,
        strengths: Sequence[float] | None = None,
        change: float | Literal["auto"] | None = None,
        seeds: Sequence[int] = (0,),
        steps: int = 50,
        guidance: float | None = None,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        inversion: Literal["direct", "null-text", "negative-prompt", "ddim"] | None = None,
        p2p: P2POptions | None = None,
        sdedit: SDEditOptions | None = None,
        masactrl: MasaCtrlOptions | None = None,
        pnp: PlugAndPlayOptions | None = None,
        ddpm: DdpmOptions | None = None,
        directedit: DirectEditOptions | None = None,
        flowedit: FlowEditOptions | None = None,
        preserve: bool | None = None,
        feather: float | None = None,
        everywhere: bool = False,
        concepts: Sequence[ConceptUse] = (),
        maps: bool = False,
        references: Sequence[str] = (),
        webhook: str | None = None,
        mask: str | None = None,
        mask_marks: Literal["white", "transparent"] = "white",
    ) -> d.DryRun:
        """What ``edit`` would do, and how long it would take; nothing is stored.

        Args:
            target_prompt: What the picture shall show; it names concepts by their tokens.
            image: Id of the picture to edit: an image, or an output of an earlier edit.
            source_prompt: What the picture shows. All methods but sdedit need it; with it
                sdedit keeps to the region of the words that change, without it all may change.
            method: `p2p` keeps the shape of the source, `sdedit` paints more freely;
                `masactrl`, `pnp`, `ddpm` (edit-friendly DDPM) and `directedit` are the editors
                of other papers, `flowedit` the one for bases of flow matching. Left out, `p2p`,
                or what the preset sets.
            preset: `paper` is p2p with null-text inversion and without `preserve`, as Custom-
                Edit publishes it.
            strengths: One picture for each. sdedit and flowedit: share of the way into noise;
                all others: more keeps more of the source. Left out, the method's default.
            change: How much changes, in every method: 0 gives the source back, 1 changes most;
                `auto` draws several and chooses by source and references. Instead of strengths.
            seeds: One picture for each strength and seed. Only sdedit, ddpm and flowedit draw
                by chance; the others take one seed.
            steps: DDIM steps.
            guidance: Scale of classifier-free guidance; left out, the base's own.
            guidance_start: Share of the steps before which nothing is guided.
            guidance_end: Share of the steps after which nothing is guided, which is faster.
            inversion: How p2p inverts the source picture. Left out, `direct`, or what the
                preset sets.
            p2p: Expert settings of Prompt-to-Prompt.
            sdedit: Expert settings of SDEdit.
            masactrl: Expert settings of MasaCtrl.
            pnp: Expert settings of Plug-and-Play.
            ddpm: Expert settings of edit-friendly DDPM.
            directedit: Expert settings of DirectEdit.
            flowedit: Expert settings of FlowEdit.
            preserve: Paste the source's own pixels outside the edited region; left out,
                wherever the edit has a region.
            feather: Width of the soft edge of that paste, in source pixels; left out, 1 where
                the region ends at the outline of its thing, 2 in a mask, else 8 of those that
                the base draws.
            everywhere: Let the concepts act on the source prompt and the empty prompt, too.
            concepts: The concepts that the target prompt names.
            maps: Keep the attention maps as a file.
            references: Images that the result is compared with; left out, the references of the
                concepts.
            webhook: An https address that is called at the job's end, signed with your secret.
            mask: Id of an image that is white where the edit may change the picture.
            mask_marks: What in the mask marks where the edit may change the picture: `white`,
                or `transparent` as in masks of OpenAI's images API.

        Raises:
            pydantic.ValidationError: a value is not usable; nothing was sent.
            ApiError: the service refused.
        """
        values = {
            "target_prompt": target_prompt,
            "image": image,
            "source_prompt": source_prompt,
            "method": method,
            "preset": preset,
            "strengths": strengths,
            "change": change,
            "seeds": seeds,
            "steps": steps,
            "guidance": guidance,
            "guidance_start": guidance_start,
            "guidance_end": guidance_end,
            "inversion": inversion,
            "p2p": p2p,
            "sdedit": sdedit,
            "masactrl": masactrl,
            "pnp": pnp,
            "ddpm": ddpm,
            "directedit": directedit,
            "flowedit": flowedit,
            "preserve": preserve,
            "feather": feather,
            "everywhere": everywhere,
            "concepts": concepts,
            "maps": maps,
            "references": references,
            "webhook": webhook,
            "mask": mask,
            "mask_marks": mask_marks,
        }
        return self._do(calls.try_edit(values))
