"""What customers may say."""

from django import forms


class PutForm(forms.Form):
    """Puts a product into the cart, or takes it out."""

    product = forms.SlugField(max_length=50)
    quantity = forms.IntegerField(min_value=0, max_value=99)


class BuyForm(forms.Form):
    """Buys what is in the cart."""

    customer = forms.EmailField(label="E-mail")
    card = forms.RegexField(
        r"\A[0-9 ]{4,20}\Z", label="Card", help_text="0000 is declined, all others are good"
    )
