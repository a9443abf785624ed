"""What a world has beside the condition of its data: which operators are at hand, what they cost, how requests come."""

from __future__ import annotations

from dataclasses import dataclass

from gnncompose.catalog.catalog import Catalog
from gnncompose.evaluation.cost import Prices
from gnncompose.execution.load import SingleStream

SINGLE_STREAM = SingleStream.name
PRICED = ("usd_per_vcpu_hour", "usd_per_gb_hour", "usd_per_gpu_hour")


@dataclass(frozen=True)
class Circumstances:
    """Catalog, prices and load of a world, told by what is unusual about them.

    Attributes:
        withheld: Operators that the catalog does not have.
        price: What resources cost, over their usual price.
        load: How requests arrive, as `execution.load` reads it.
    """

    withheld: tuple[str, ...] = ()
    price: float = 1.0
    load: str = SINGLE_STREAM

    def catalog(self, whole: Catalog) -> Catalog:
        """What is left of a catalog.

        Raises:
            CatalogError: It never had what is withheld.
        """
        for name in self.withheld:
            whole.operator(name)
        left = tuple(operator for operator in whole.operators if operator.name not in self.withheld)
        return Catalog(whole.name, left, whole.directory)

    def prices(self, usual: Prices) -> Prices:
        """What resources cost."""
        if self.price == 1.0:
            return usual
        return Prices(
            tuple(
                resource.model_copy(update={name: getattr(resource, name) * self.price for name in PRICED})
                for resource in usual.resources
            )
        )

    def news(self, before: Circumstances) -> str:
        """What has changed, for a person."""
        gone, new = (
            [name for name in some if name not in others]
            for some, others in ((self.withheld, before.withheld), (before.withheld, self.withheld))
        )
        found = [f"{name} was withdrawn" for name in gone] + [f"{name} is new" for name in new]
        if self.price != before.price:
            found.append(f"resources cost {self.price / before.price:g} times as much")
        if self.load != before.load:
            found.append(f"requests come as {self.load}")
        return "; ".join(found)


USUAL = Circumstances()
