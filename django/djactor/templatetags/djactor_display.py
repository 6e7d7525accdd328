"""``{% load djactor_display %}``: the functions of ``djactor.admin.display`` as filters."""

from django import template

from djactor.admin import display

register = template.Library()
register.filter("clock", display.clock)
register.filter("count", display.count)
register.filter("duration", display.duration)
register.filter("first_line", display.first_line)
register.filter("shortened", display.shortened)
