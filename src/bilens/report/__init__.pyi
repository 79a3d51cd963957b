# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .charts.curves import (
    START as START,
    STYLE as STYLE,
    Curve as Curve,
    line_figure as line_figure,
)
from .circuit_graph import (
    build_circuit_graph as build_circuit_graph,
)
from .html import environment as environment, render_html as render_html
from .markup import (
    Column as Column,
    Content as Content,
    Figure as Figure,
    badge as badge,
    element as element,
    joined as joined,
    label as label,
    line as line,
    page_link as page_link,
    paragraph as paragraph,
    polyline as polyline,
    quiet as quiet,
    rectangle as rectangle,
    section as section,
    table as table,
)
from .plates import GAP as GAP, MARGIN as MARGIN, WIDTH as WIDTH, frame as frame, plate as plate
from .raster import DIVERGING as DIVERGING, Painter as Painter, hex_colour as hex_colour
from .reports import SavedReport as SavedReport, SweepReport as SweepReport
from .sections.decision_page import LOOKS as LOOKS
from .sections.difference import headline_sentence as headline_sentence, reason_text as reason_text
from .sections.layers import difference as difference
from .sections.overview import (
    FindingLine as FindingLine,
    condition_line as condition_line,
    finding_line as finding_line,
    rule_number as rule_number,
    title_of as title_of,
)
from .sections.people import (
    judgement_text as judgement_text,
    subject_name as subject_name,
)
from .sections.performance_section import mistake_table as mistake_table
from .summary import render_summary as render_summary
from .tables import FieldColumn as FieldColumn
from .text import (
    LANGUAGES as LANGUAGES,
    MARKS as MARKS,
    NONE as NONE,
    Catalogue as Catalogue,
    fitted as fitted,
    floored as floored,
    grouped as grouped,
    load_catalogue as load_catalogue,
    signed as signed,
    text_width as text_width,
)
