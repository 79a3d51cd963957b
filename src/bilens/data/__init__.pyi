# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .images import test_images_at_hand as test_images_at_hand
from .labelled_data import read_labelled as read_labelled
from .model_interface import LabelledData as LabelledData
from .story_grammar import FEELINGS as FEELINGS, StoryGrammar as StoryGrammar
from .table_columns import MISSING as MISSING
from .tokenizer import (
    FILE_NAME as FILE_NAME,
    Tokenizer as Tokenizer,
    load_tokenizer as load_tokenizer,
    pack_documents as pack_documents,
)
