"""The model repository: operators with typed ports, artifacts and measured profiles."""

from gnncompose.catalog.catalog import Catalog, CatalogDifference, load_catalog
from gnncompose.catalog.operator import Operator, Parameter, Port, PortType, Profile, Provenance

__all__ = [
    "Catalog",
    "CatalogDifference",
    "Operator",
    "Parameter",
    "Port",
    "PortType",
    "Profile",
    "Provenance",
    "load_catalog",
]
