"""Documents of every kind that together need every sentence of every page."""

import attack_documents
import certificate_documents
import conversion_documents
import layer_audit_documents
import network_documents
import report_documents
import sweep_documents
import table_documents
import trace_documents

DOCUMENTS = {
    **report_documents.variants(),
    **{f"attack {name}": found for name, found in attack_documents.variants().items()},
    **{f"conversion {name}": found for name, found in conversion_documents.variants().items()},
    **{f"certificate {name}": found for name, found in certificate_documents.variants().items()},
    **{f"layers {name}": found for name, found in layer_audit_documents.variants().items()},
    **{f"network {name}": found for name, found in network_documents.variants().items()},
    **{f"sweep {name}": found for name, found in sweep_documents.variants().items()},
    **{f"table {name}": found for name, found in table_documents.variants().items()},
    **{f"trace {name}": found for name, found in trace_documents.variants().items()},
}
