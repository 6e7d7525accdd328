"""Tenants; the actor types live in this app, too, since they are shared."""

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Firm(TenantMixin):
    name = models.TextField()


class Domain(DomainMixin):
    pass
