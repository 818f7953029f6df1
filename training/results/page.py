"""The page of results: its words, around tables of rows."""

from __future__ import annotations

from training.runs.reports import Rows, markdown

HEAD = """# Results

Written by `python -m training.document` from the folders of measured runs: no figure here is typed. A run
that was stopped early, or asked for other fields than its file, stands here as it is; how each was made is
below.
"""
DRAWN = """
## What runs draw

After so many steps, of how many in the experiment's file; measured on whole test sets, and on the latents of
{latents}. In brackets the floor, which unrelated real images have, or for a distance
what real training images have. Strips are of seeds 0 to 7, not chosen: what stands below one another within
an experiment is a pair.

{table}
- **Pixels agree** where the domain's own transform of another drawn image is what was drawn for the domain,
  to the same side of mid-grey, or within so many of 255 levels. **Published**: Liu & Tuzel 2016, with a
  tolerance that they do not state.
- **Classes agree** where classifiers call the images of a pair what they call that of the first domain.
  **Class balance**: the entropy of the drawn classes over that of equally many of each.
- **Frechet distance** of what the domain's classifier sees in drawn images from what it sees in real ones;
  those of one classifier can be compared. **Its classifier**: the share of real test images it calls right.
"""
TAUGHT = """
## What labels of another domain teach

Accuracy of the last step on all test images of the domain without labels: mean and standard deviation over
the seeds. **Held out** is the share of a domain's images that was not learned from and measured against, as
the official code divides USPS; others are divided as their source has it. **Published** is that of CoGAN.

{table}"""
MADE = """
## How they were made

Images of each domain in a step; weights of the networks; minutes by the clock, halts among them, of one run
where there are several seeds.

{table}"""


def page(drawn: Rows, taught: Rows, made: Rows, latents: str) -> str:
    """Return the page in Markdown, a section for each table that has rows, of those `latents`."""
    sections = ((DRAWN, drawn), (TAUGHT, taught), (MADE, made))
    texts = [text.format(table=markdown(rows), latents=latents) for text, rows in sections if rows]
    return "".join([HEAD, *texts])
