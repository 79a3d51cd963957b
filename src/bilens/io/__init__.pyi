# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .autoencoders import sae_for_hook as sae_for_hook
from .converted_folder import open_model as open_model, save_converted as save_converted
from .file_kinds import (
    MARKS as MARKS,
    is_listed as is_listed,
    is_model as is_model,
    mark_of as mark_of,
)
from .formats.peft import named_base as named_base
from .host import Host as Host, open_host as open_host, tokenizer_at as tokenizer_at
from .loaded_model import LoadedModel as LoadedModel, is_of_numbers as is_of_numbers
from .remote import address_in as address_in
from .vocabulary import vocabulary_of as vocabulary_of
